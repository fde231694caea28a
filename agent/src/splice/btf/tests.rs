use proptest::prelude::*;

use super::*;

/// `struct outer { int first; struct { int hidden; }; const wrapped inner; }`, where `wrapped` is
/// a typedef of `struct inner { int a; int b; }`.
fn example() -> Vec<u8> {
    let strings = b"\0int\0inner\0a\0b\0outer\0first\0hidden\0wrapped\0";
    let place = |name: &str| {
        let found = strings.windows(name.len() + 2).position(|window| {
            window[0] == 0
                && window[1..].starts_with(name.as_bytes())
                && window[name.len() + 1] == 0
        });
        u32::try_from(found.unwrap() + 1).unwrap()
    };
    let kind = |kind: u32, count: u32| kind << 24 | count;
    let words = [
        // 1: int
        vec![place("int"), kind(1, 0), 4, 32],
        // 2: inner
        vec![
            place("inner"),
            kind(KIND_STRUCT, 2),
            8,
            place("a"),
            1,
            0,
            place("b"),
            1,
            32,
        ],
        // 3: wrapped, 4: const of it
        vec![place("wrapped"), kind(KIND_TYPEDEF, 0), 2],
        vec![0, kind(KIND_CONST, 0), 3],
        // 5: the struct without a name
        vec![0, kind(KIND_STRUCT, 1), 4, place("hidden"), 1, 0],
        // 6: outer, with the flag of bit fields
        vec![
            place("outer"),
            kind(KIND_STRUCT, 3) | 1 << 31,
            16,
            place("first"),
            1,
            32 << 24,
            0,
            5,
            32,
            place("inner"),
            4,
            64,
        ],
    ];
    assemble(&words.concat(), strings)
}

/// BTF with these types and these names.
fn assemble(words: &[u32], strings: &[u8]) -> Vec<u8> {
    let section: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let mut data = MAGIC.to_ne_bytes().to_vec();
    data.extend([1, 0]);
    for word in [24, 0, length(&section), length(&section), length(strings)] {
        data.extend(word.to_ne_bytes());
    }
    data.extend(&section);
    data.extend(strings);
    data
}

#[test]
fn fields_are_found_through_typedefs_and_members_without_names() {
    let data = example();
    let btf = Btf::parse(&data).unwrap();
    let table: [(&'static str, &[&'static str], Result<u32, Error>); 7] = [
        ("outer", &["first"], Ok(0)),
        ("outer", &["hidden"], Ok(4)),
        ("outer", &["inner"], Ok(8)),
        ("outer", &["inner", "b"], Ok(12)),
        ("inner", &["b"], Ok(4)),
        (
            "outer",
            &["inner", "c"],
            Err(Error::NoField {
                of: "outer",
                field: "c",
            }),
        ),
        ("int", &["a"], Err(Error::NoStruct("int"))),
    ];
    for (of, path, expected) in table {
        assert_eq!(btf.offset(of, path), expected, "{of} {path:?}");
    }
}

#[test]
fn what_is_cut_off_is_said_to_be() {
    let data = example();
    for length in 0..data.len() {
        assert!(
            matches!(Btf::parse(&data[..length]), Err(Error::Malformed(_))),
            "{length}"
        );
    }
}

#[test]
fn members_without_names_that_lead_back_to_their_struct_are_followed_once() {
    const MEMBERS: u32 = 100;
    let mut words = vec![1, KIND_STRUCT << 24 | MEMBERS, 0];
    for _ in 0..MEMBERS {
        words.extend([0, 1, 0]);
    }
    let data = assemble(&words, b"\0outer\0");
    let (of, field) = ("outer", "absent");
    let found = Btf::parse(&data).unwrap().offset(of, &[field]);
    assert_eq!(found, Err(Error::NoField { of, field }));
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(change in any::<Vec<(prop::sample::Index, u8)>>()) {
        let mut data = example();
        for (index, byte) in change {
            let index = index.index(data.len());
            data[index] = byte;
        }
        if let Ok(btf) = Btf::parse(&data) {
            let _ = btf.offset("outer", &["inner", "b"]);
            let _ = btf.offset("outer", &["hidden"]);
        }
    }
}
