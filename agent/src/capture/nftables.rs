//! The node's one nftables table: where the mesh meets conntrack and NAT. None in a pod.
//!
//! A captured packet for a Service VIP still passes netfilter: kube-proxy's DNAT would rewrite it
//! on its way to the agent. Untracked packets meet no NAT.
//!
//! The agent's transparent sockets bear addresses that aren't the node's: a pod's, towards clients
//! outside the mesh; a client's, towards servers outside. The stack finds such a socket by a
//! packet's addresses before it routes (early demux), and drops what has a socket and is to be
//! forwarded. So what belongs to a transparent socket gets the capture mark, which makes it local:
//! after NAT, since only then does a packet that was sent to a VIP bear the pod's address.
//!
//! The messages are made here because the libraries for nf_tables need C headers or the `nft`
//! program, and the agent's image has neither. Layout: linux/netfilter/nf_tables.h.

use std::io;

use ambit_common::{capture::Listener, mark};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// The table's name, in the `inet` family.
pub(super) const TABLE: &str = "ambit";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;

const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACKNOWLEDGE: u16 = 0x4;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const FAMILY_UNSPECIFIED: u8 = 0;
const FAMILY_INET: u8 = 1;
const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
/// `raw`: before conntrack, which sits at -200.
const PRIORITY_RAW: i32 = -300;
/// After `dstnat`, which sits at -100.
const PRIORITY_TRANSLATED: i32 = -90;
const REGISTER: u32 = 1;
const META_MARK: u32 = 3;
const META_LAYER_4: u32 = 16;
const TCP: u8 = 6;
const SOCKET_TRANSPARENT: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Writes the table, in place of one that an earlier agent left.
///
/// # Errors
/// What the kernel refused; nothing is changed then.
pub(super) fn install() -> io::Result<()> {
    let mut batch = Batch::new();
    // Add, delete, add: whatever was there before, the batch leaves exactly this.
    batch.table(NEW_TABLE, FLAG_CREATE);
    batch.table(DELETE_TABLE, 0);
    batch.table(NEW_TABLE, FLAG_CREATE);
    batch.chain("prerouting", HOOK_PREROUTING, PRIORITY_RAW);
    batch.chain("output", HOOK_OUTPUT, PRIORITY_RAW);
    batch.chain("translated", HOOK_PREROUTING, PRIORITY_TRANSLATED);
    let untracked = |value, mask| {
        [
            mark_compares(EQUAL, value, mask).to_vec(),
            vec![expression("notrack", &[])],
        ]
        .concat()
    };
    batch.rule("prerouting", &untracked(mark::CAPTURE, mark::CAPTURE_MASK));
    batch.rule("output", &untracked(mark::AGENT, mark::AGENT_MASK));
    batch.rule("translated", &for_a_transparent_socket());
    batch.commit()
}

/// Removes the table. It's no error if there is none.
///
/// # Errors
/// What the kernel refused.
pub(super) fn remove() -> io::Result<()> {
    let mut batch = Batch::new();
    batch.table(NEW_TABLE, FLAG_CREATE);
    batch.table(DELETE_TABLE, 0);
    batch.commit()
}

/// Messages that the kernel applies together or not at all.
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::with_capacity(1024),
            sequence: 0,
        };
        batch.message(BATCH_BEGIN, 0, FAMILY_UNSPECIFIED, &[]);
        batch
    }

    fn table(&mut self, kind: u16, flags: u16) {
        self.message(kind, flags | FLAG_ACKNOWLEDGE, FAMILY_INET, &text(1, TABLE));
    }

    fn chain(&mut self, name: &str, hook: u32, priority: i32) {
        let hook = [number(1, hook), number(2, priority.cast_unsigned())].concat();
        let body = [
            text(1, TABLE),
            text(3, name),
            nested(4, &hook),
            text(7, "filter"),
        ]
        .concat();
        self.message(
            NEW_CHAIN,
            FLAG_CREATE | FLAG_ACKNOWLEDGE,
            FAMILY_INET,
            &body,
        );
    }

    fn rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        let body = [
            text(1, TABLE),
            text(2, chain),
            nested(4, &expressions.concat()),
        ]
        .concat();
        let flags = FLAG_CREATE | FLAG_APPEND | FLAG_ACKNOWLEDGE;
        self.message(NEW_RULE, flags, FAMILY_INET, &body);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, body: &[u8]) {
        const HEADERS: usize = 20;
        let length = u32::try_from(HEADERS + body.len()).unwrap_or(u32::MAX);
        // The subsystem stands in the batch's own two messages; elsewhere the field is zero.
        let resource = if family == FAMILY_UNSPECIFIED {
            SUBSYSTEM
        } else {
            0
        };
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | FLAG_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.sequence += 1;
    }

    fn commit(mut self) -> io::Result<()> {
        let expected = self.sequence - 1;
        self.message(BATCH_END, 0, FAMILY_UNSPECIFIED, &[]);
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&self.bytes, 0)?;
        let mut acknowledged = 0;
        while acknowledged < expected {
            let (reply, _) = socket.recv_from_full()?;
            acknowledged += acknowledgements(&reply)?;
        }
        Ok(())
    }
}

/// `meta mark & mask <operator> value`.
fn mark_compares(operator: u32, value: u32, mask: u32) -> [Vec<u8>; 3] {
    [
        expression(
            "meta",
            &[number(1, REGISTER), number(2, META_MARK)].concat(),
        ),
        masked(mask),
        compare(operator, &value.to_ne_bytes()),
    ]
}

/// `meta mark & mask != capture meta mark & mask != passed meta l4proto tcp socket transparent 1 meta mark set
/// <plaintext>`.
///
/// What passes from pod to pod has no socket here, so none is looked for. The agent's transparent listeners are
/// bound to loopback, so none of them matches by its port. Not `socket mark`, which half-open connections don't
/// have.
fn for_a_transparent_socket() -> Vec<Vec<u8>> {
    let mark = mark::for_listener(Listener::Plaintext).to_ne_bytes();
    let is_agents = [
        expression(
            "meta",
            &[number(1, REGISTER), number(2, META_LAYER_4)].concat(),
        ),
        compare(EQUAL, &[TCP]),
        expression(
            "socket",
            &[number(1, SOCKET_TRANSPARENT), number(2, REGISTER)].concat(),
        ),
        compare(EQUAL, &[1]),
        expression("immediate", &[number(1, REGISTER), data(2, &mark)].concat()),
        expression(
            "meta",
            &[number(2, META_MARK), number(3, REGISTER)].concat(),
        ),
    ];
    [
        &mark_compares(NOT_EQUAL, mark::CAPTURE, mark::CAPTURE_MASK)[..],
        &mark_compares(NOT_EQUAL, mark::PASSED, mark::AGENT_MASK),
        &is_agents,
    ]
    .concat()
}

/// The register's four bytes and a mask.
fn masked(mask: u32) -> Vec<u8> {
    let parts = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        data(4, &mask.to_ne_bytes()),
        data(5, &[0; 4]),
    ];
    expression("bitwise", &parts.concat())
}

/// The rule goes on only if the register and `value` compare so.
fn compare(operator: u32, value: &[u8]) -> Vec<u8> {
    expression(
        "cmp",
        &[number(1, REGISTER), number(2, operator), data(3, value)].concat(),
    )
}

/// Counts the acknowledgements in a reply; the first refusal in it is the error.
fn acknowledgements(mut reply: &[u8]) -> io::Result<u32> {
    const ERROR: [u8; 2] = 2_u16.to_ne_bytes();
    let mut count = 0;
    while let [l0, l1, l2, l3, k0, k1, ..] = *reply {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let code = reply
            .get(16..20)
            .and_then(|code| code.try_into().ok())
            .map(i32::from_ne_bytes);
        if [k0, k1] == ERROR
            && let Some(code) = code
        {
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            count += 1;
        }
        reply = reply
            .get(length.next_multiple_of(4).max(20)..)
            .unwrap_or_default();
    }
    Ok(count)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, value)
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A value for a register. What `meta` and `ct` load is in the byte order of the machine.
fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    nested(kind, &attribute(1, value))
}

fn expression(name: &str, body: &[u8]) -> Vec<u8> {
    let mut inner = text(1, name);
    if !body.is_empty() {
        inner.extend(nested(2, body));
    }
    nested(1, &inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_but_their_length_is_not() {
        let bytes = text(3, "output");
        assert_eq!(bytes.len(), 12);
        assert_eq!(u16::from_ne_bytes([bytes[0], bytes[1]]), 11);
    }

    #[test]
    fn a_refusal_in_a_reply_is_an_error() {
        let reply = |code: i32| {
            let mut bytes = Vec::new();
            bytes.extend(36_u32.to_ne_bytes());
            bytes.extend(2_u16.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        assert_eq!(acknowledgements(&[reply(0), reply(0)].concat()).unwrap(), 2);
        let error = acknowledgements(&[reply(0), reply(-1)].concat()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        assert_eq!(acknowledgements(&[1, 2, 3]).unwrap(), 0);
    }
}
