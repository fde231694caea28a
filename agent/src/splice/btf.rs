//! Where fields are in the running kernel's structs, by its BTF (the kernel's btf.rst).
//!
//! Only what is asked for is looked at: to build every type, as loaders do, would cost the agent
//! tens of megabytes at its start.

/// `BTF_MAGIC`, in this machine's byte order.
const MAGIC: u16 = 0xeb9f;
/// Structs within structs are followed as deep as this.
const MAX_DEPTH: u32 = 8;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
const KIND_LAST: u32 = 19;

/// Why a field isn't found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It isn't BTF, or is cut off, or of a kind that came later.
    #[error("the kernel's BTF can't be read: {0}")]
    Malformed(&'static str),
    /// The kernel has no such struct.
    #[error("this kernel has no struct {0}")]
    NoStruct(&'static str),
    /// The struct has no such field.
    #[error("this kernel's struct {of} has no field {field}")]
    NoField {
        /// The struct.
        of: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// BTF of a kernel, of which fields can be asked.
#[derive(Debug)]
pub struct Btf<'a> {
    strings: &'a [u8],
    section: &'a [u8],
    /// Where in the section each type begins; type 1 is the first.
    types: Vec<u32>,
}

/// One type: its name's place, its kind, and what follows.
#[derive(Debug, Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    has_bitfields: bool,
    /// Of what it refers to, or its size.
    target: u32,
    members: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Reads the layout of what `/sys/kernel/btf/vmlinux` has.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let magic = data.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        if magic != Some(MAGIC) {
            return Err(Error::Malformed("it doesn't begin as BTF does"));
        }
        let cut = Error::Malformed("its header is cut off");
        let header = |at| word(data, at).ok_or(Error::Malformed("its header is cut off"));
        let body = data.get(header(4)? as usize..).ok_or(cut)?;
        let part = |offset: u32, length: u32| {
            let start = offset as usize;
            body.get(start..start.saturating_add(length as usize))
                .ok_or(Error::Malformed("a section is cut off"))
        };
        let section = part(header(8)?, header(12)?)?;
        let strings = part(header(16)?, header(20)?)?;
        let mut types = Vec::new();
        let mut at = 0;
        while at < section.len() {
            let found = read_type(section, at).ok_or(Error::Malformed("a type is cut off"))?;
            if found.kind == 0 || found.kind > KIND_LAST {
                return Err(Error::Malformed("it has a kind of type that came later"));
            }
            types.push(u32::try_from(at).map_err(|_| Error::Malformed("it is too large"))?);
            at += 12 + found.members.len();
        }
        Ok(Self {
            strings,
            section,
            types,
        })
    }

    /// The offset in bytes of a field of a struct, given by the names that lead to it.
    ///
    /// # Errors
    /// [`Error`] names what isn't there.
    pub fn offset(&self, of: &'static str, path: &[&'static str]) -> Result<u32, Error> {
        let mut id = self.find_struct(of).ok_or(Error::NoStruct(of))?;
        let mut bits = 0_u32;
        for &field in path {
            let missing = Error::NoField { of, field };
            let found = self.find_field(id, field, MAX_DEPTH, &mut Vec::new());
            let (offset, target) = found.ok_or(missing)?;
            bits = bits.saturating_add(offset);
            id = target;
        }
        Ok(bits / 8)
    }

    fn find_struct(&self, name: &str) -> Option<u32> {
        (1_u32..).zip(&self.types).find_map(|(id, _)| {
            let found = self.get(id)?;
            let is_it = found.kind == KIND_STRUCT && self.name(found.name) == name.as_bytes();
            is_it.then_some(id)
        })
    }

    /// Offset in bits and type of a field, also of one in a member without a name. What was `seen` without it is
    /// not looked into again: members without names that lead to each other would take forever.
    fn find_field(
        &self,
        id: u32,
        field: &str,
        depth: u32,
        seen: &mut Vec<u32>,
    ) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let id = self.plain(id)?;
        let owner = self.get(id)?;
        if !matches!(owner.kind, KIND_STRUCT | KIND_UNION) || seen.contains(&id) {
            return None;
        }
        seen.push(id);
        owner.members.chunks_exact(12).find_map(|member| {
            let (name, target, place) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let offset = if owner.has_bitfields {
                place & 0xff_ffff
            } else {
                place
            };
            let name = self.name(name);
            if name.is_empty() {
                let (inner, target) = self.find_field(target, field, depth, seen)?;
                return Some((offset.saturating_add(inner), target));
            }
            (name == field.as_bytes()).then_some((offset, target))
        })
    }

    /// The type behind `typedef`, `const` and `volatile`.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST => id = found.target,
                _ => return Some(id),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        read_type(self.section, *self.types.get(index)? as usize)
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

fn read_type(section: &[u8], at: usize) -> Option<Type<'_>> {
    let info = word(section, at + 4)?;
    let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
    let each = match kind {
        KIND_ARRAY | KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12,
        KIND_ENUM | KIND_FUNC_PROTO => 8,
        // An integer's encoding, a variable's linkage, a tag's place.
        1 | KIND_VAR | KIND_DECL_TAG => 4,
        _ => 0,
    };
    // These have one of it, whatever the count says.
    let many = match kind {
        1 | KIND_ARRAY | KIND_VAR | KIND_DECL_TAG => 1,
        _ => count as usize,
    };
    Some(Type {
        name: word(section, at)?,
        kind,
        has_bitfields: info >> 31 == 1,
        target: word(section, at + 8)?,
        members: section.get(at + 12..at + 12 + each * many)?,
    })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
