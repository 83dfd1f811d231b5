//! The rules as nf_tables messages over netlink, in one batch: the kernel takes all of them or none.
//! Neither `nft` nor a library is needed, so the init step runs in an image that holds only our program.
//! Layout: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`.

use std::io::{self, Read};
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

use super::Ports;
use super::rules::{Chain, Hook, Match, Rule, Table, Verdict};

/// The rules could not be programmed; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(
        "cannot program the redirect rules: the kernel refuses it (EPERM). This step needs the capability NET_ADMIN in the pod's \
         network namespace: add `securityContext.capabilities.add: [NET_ADMIN]` to the init container, or let a CNI plug-in run it"
    )]
    NotPermitted,
    #[error(
        "cannot program the redirect rules: this kernel has no nf_tables NAT of family inet ({0}). It needs Linux 5.2 or later with \
         CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and CONFIG_NFT_REDIR"
    )]
    NotSupported(io::Error),
    #[error("cannot program the redirect rules: {0}")]
    Socket(#[from] io::Error),
    #[error("cannot program the redirect rules: the kernel's answer is not netlink")]
    Garbled,
}

/// Replaces our table by this one.
pub(super) fn program(table: &Table) -> Result<(), ProgramError> {
    let (batch, acknowledgements) = batch(table);
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_NETFILTER)))
            .map_err(refused)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    // Not connected: the kernel is the peer.
    socket.send(&batch)?;
    let mut answers = [0; 8192];
    let mut acknowledged = 0;
    while acknowledged < acknowledgements {
        let length = (&socket).read(&mut answers)?;
        acknowledged += read_answers(&answers[..length])?;
    }
    Ok(())
}

/// The kernel answers at once; this is for one that has lost its mind.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts the acknowledgements, up to the first error.
fn read_answers(mut bytes: &[u8]) -> Result<usize, ProgramError> {
    let mut acknowledged = 0;
    while !bytes.is_empty() {
        let number =
            |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
        let length = number(0).ok_or(ProgramError::Garbled)? as usize;
        let kind = number(4).ok_or(ProgramError::Garbled)? as u16;
        if length < HEADER || length > bytes.len() {
            return Err(ProgramError::Garbled);
        }
        if i32::from(kind) == libc::NLMSG_ERROR {
            let errno = number(HEADER).ok_or(ProgramError::Garbled)?.cast_signed();
            if errno != 0 {
                return Err(refused(io::Error::from_raw_os_error(-errno)));
            }
            acknowledged += 1;
        }
        bytes = bytes.get(padded(length)..).unwrap_or_default();
    }
    Ok(acknowledged)
}

fn refused(error: io::Error) -> ProgramError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ProgramError::NotPermitted,
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT | libc::EINVAL) => {
            ProgramError::NotSupported(error)
        }
        _ => ProgramError::Socket(error),
    }
}

/// The whole transaction, and how many acknowledgements it will get. The table is made (if it was not
/// there), removed and made again: running twice is running once.
fn batch(table: &Table) -> (Vec<u8>, usize) {
    let mut batch = Batch { bytes: Vec::new(), sequence: 0, acknowledgements: 0 };
    batch.control(libc::NFNL_MSG_BATCH_BEGIN);
    let named = |message: &mut Vec<u8>| string(message, NFTA_TABLE_NAME, table.name);
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, named);
    batch.message(libc::NFT_MSG_DELTABLE, 0, named);
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, named);
    for chain in &table.chains {
        batch.message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, |message| new_chain(message, table, chain));
        for rule in &chain.rules {
            let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
            batch.message(libc::NFT_MSG_NEWRULE, flags, |message| new_rule(message, table, chain, rule));
        }
    }
    batch.control(libc::NFNL_MSG_BATCH_END);
    (batch.bytes, batch.acknowledgements)
}

/// Messages one after the other.
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    acknowledgements: usize,
}

impl Batch {
    fn control(&mut self, kind: i32) {
        // The resource of a control message is the subsystem that the batch is for.
        let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
        self.append(kind as u16, 0, 0, subsystem, |_| ());
    }

    fn message(&mut self, kind: i32, flags: i32, attributes: impl FnOnce(&mut Vec<u8>)) {
        self.acknowledgements += 1;
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
        self.append(kind, flags | libc::NLM_F_ACK, libc::NFPROTO_INET as u8, 0, attributes);
    }

    /// `nlmsghdr`, `nfgenmsg`, attributes.
    fn append(
        &mut self,
        kind: u16,
        flags: i32,
        family: u8,
        resource: u16,
        attributes: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]); // the length, when it is known
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // from us
        self.bytes.extend_from_slice(&[family, libc::NFNETLINK_V0 as u8]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        attributes(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence += 1;
    }
}

fn new_chain(message: &mut Vec<u8>, table: &Table, chain: &Chain) {
    let hook = match chain.hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING,
        Hook::Output => libc::NF_INET_LOCAL_OUT,
    };
    string(message, NFTA_CHAIN_TABLE, table.name);
    string(message, NFTA_CHAIN_NAME, chain.name);
    nested(message, NFTA_CHAIN_HOOK, |message| {
        number(message, NFTA_HOOK_HOOKNUM, hook.cast_unsigned());
        number(message, NFTA_HOOK_PRIORITY, libc::NF_IP_PRI_NAT_DST.cast_unsigned());
    });
    number(message, NFTA_CHAIN_POLICY, libc::NF_ACCEPT.cast_unsigned());
    string(message, NFTA_CHAIN_TYPE, "nat");
}

fn new_rule(message: &mut Vec<u8>, table: &Table, chain: &Chain, rule: &Rule) {
    string(message, NFTA_RULE_TABLE, table.name);
    string(message, NFTA_RULE_CHAIN, chain.name);
    nested(message, NFTA_RULE_EXPRESSIONS, |expressions| {
        for matched in &rule.matches {
            append_match(expressions, matched, chain.hook);
        }
        append_verdict(expressions, rule.verdict);
    });
}

fn append_match(expressions: &mut Vec<u8>, matched: &Match, hook: Hook) {
    match matched {
        Match::Tcp => meta_is(expressions, libc::NFT_META_L4PROTO, &[libc::IPPROTO_TCP as u8]),
        Match::Port(Ports { first, last }) => {
            meta_is(expressions, libc::NFT_META_L4PROTO, &[libc::IPPROTO_TCP as u8]);
            load_payload(expressions, libc::NFT_PAYLOAD_TRANSPORT_HEADER, TCP_DESTINATION_PORT, 2);
            match first == last {
                true => is(expressions, &first.to_be_bytes()),
                false => {
                    compare(expressions, libc::NFT_CMP_GTE, &first.to_be_bytes());
                    compare(expressions, libc::NFT_CMP_LTE, &last.to_be_bytes());
                }
            }
        }
        Match::Destination(network) => append_destination(expressions, network),
        Match::User(uid) => meta_is(expressions, libc::NFT_META_SKUID, &uid.to_ne_bytes()),
        Match::Loopback => {
            let key = match hook {
                Hook::Prerouting => libc::NFT_META_IIFNAME,
                Hook::Output => libc::NFT_META_OIFNAME,
            };
            meta_is(expressions, key, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"); // IFNAMSIZ
        }
    }
}

fn append_destination(expressions: &mut Vec<u8>, network: &IpNet) {
    let (family, offset, address, mask) = match network {
        IpNet::V4(v4) => (
            libc::NFPROTO_IPV4,
            IPV4_DESTINATION,
            v4.network().octets().to_vec(),
            v4.netmask().octets().to_vec(),
        ),
        IpNet::V6(v6) => (
            libc::NFPROTO_IPV6,
            IPV6_DESTINATION,
            v6.network().octets().to_vec(),
            v6.netmask().octets().to_vec(),
        ),
    };
    meta_is(expressions, libc::NFT_META_NFPROTO, &[family as u8]);
    load_payload(expressions, libc::NFT_PAYLOAD_NETWORK_HEADER, offset, address.len());
    if network.prefix_len() < network.max_prefix_len() {
        expression(expressions, "bitwise", |data| {
            number(data, NFTA_BITWISE_SREG, REGISTER);
            number(data, NFTA_BITWISE_DREG, REGISTER);
            number(data, NFTA_BITWISE_LEN, mask.len() as u32);
            value(data, NFTA_BITWISE_MASK, &mask);
            value(data, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
        });
    }
    is(expressions, &address);
}

fn append_verdict(expressions: &mut Vec<u8>, verdict: Verdict) {
    match verdict {
        Verdict::Return => expression(expressions, "immediate", |data| {
            number(data, NFTA_IMMEDIATE_DREG, libc::NFT_REG_VERDICT.cast_unsigned());
            nested(data, NFTA_IMMEDIATE_DATA, |data| {
                nested(data, NFTA_DATA_VERDICT, |data| {
                    number(data, NFTA_VERDICT_CODE, libc::NFT_RETURN.cast_unsigned());
                });
            });
        }),
        Verdict::Redirect(port) => {
            expression(expressions, "immediate", |data| {
                number(data, NFTA_IMMEDIATE_DREG, REGISTER);
                value(data, NFTA_IMMEDIATE_DATA, &port.to_be_bytes());
            });
            expression(expressions, "redir", |data| number(data, NFTA_REDIR_REG_PROTO_MIN, REGISTER));
        }
    }
}

fn meta_is(expressions: &mut Vec<u8>, key: i32, wanted: &[u8]) {
    expression(expressions, "meta", |data| {
        number(data, NFTA_META_DREG, REGISTER);
        number(data, NFTA_META_KEY, key.cast_unsigned());
    });
    is(expressions, wanted);
}

fn load_payload(expressions: &mut Vec<u8>, base: i32, offset: u32, length: usize) {
    expression(expressions, "payload", |data| {
        number(data, NFTA_PAYLOAD_DREG, REGISTER);
        number(data, NFTA_PAYLOAD_BASE, base.cast_unsigned());
        number(data, NFTA_PAYLOAD_OFFSET, offset);
        number(data, NFTA_PAYLOAD_LEN, length as u32);
    });
}

/// Whether this was loaded.
fn is(expressions: &mut Vec<u8>, wanted: &[u8]) {
    compare(expressions, libc::NFT_CMP_EQ, wanted);
}

/// Compares what was loaded, as bytes: numbers of the network are in its order, and so comparable.
fn compare(expressions: &mut Vec<u8>, how: i32, wanted: &[u8]) {
    expression(expressions, "cmp", |data| {
        number(data, NFTA_CMP_SREG, REGISTER);
        number(data, NFTA_CMP_OP, how.cast_unsigned());
        value(data, NFTA_CMP_DATA, wanted);
    });
}

fn expression(expressions: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nested(expressions, NFTA_LIST_ELEM, |element| {
        string(element, NFTA_EXPR_NAME, name);
        nested(element, NFTA_EXPR_DATA, data);
    });
}

// Attributes: length, type, payload, padded to four bytes. Numbers are in network order.

fn attribute(message: &mut Vec<u8>, kind: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = message.len();
    message.extend_from_slice(&[0; 2]); // the length, when it is known
    message.extend_from_slice(&kind.to_ne_bytes());
    payload(message);
    let length = message.len() - start;
    message[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    message.resize(start + padded(length), 0);
}

fn nested(message: &mut Vec<u8>, kind: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
    attribute(message, kind | libc::NLA_F_NESTED as u16, attributes);
}

fn string(message: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(message, kind, |message| {
        message.extend_from_slice(text.as_bytes());
        message.push(0);
    });
}

fn number(message: &mut Vec<u8>, kind: u16, number: u32) {
    attribute(message, kind, |message| message.extend_from_slice(&number.to_be_bytes()));
}

fn value(message: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    nested(message, kind, |message| {
        attribute(message, NFTA_DATA_VALUE, |message| message.extend_from_slice(bytes))
    });
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Sixteen bytes that an expression loads into and the next one reads.
const REGISTER: u32 = libc::NFT_REG_1 as u32;

/// Length of `nlmsghdr`.
const HEADER: usize = 16;

// Where a packet holds what we compare, in bytes from the start of its header.
const TCP_DESTINATION_PORT: u32 = 2;
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;

// linux/netfilter/nf_tables.h; the attribute types that `libc` does not have.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of an NLMSG_ERROR message about a first message.
    fn answer(errno: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [36, libc::NLMSG_ERROR, 0, 0, -errno, 0, 0, 0, 0] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_rule_is_encoded_as_the_kernel_reads_it() {
        let mut bytes = Vec::new();
        append_match(&mut bytes, &Match::User(1337), Hook::Output);
        let be = |number: u32| number.to_be_bytes();
        let head = |length: u16, kind: u16| [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        let nest = libc::NLA_F_NESTED as u16;
        let expected = [
            head(36, 1 | nest),
            [head(9, 1), b"meta\0\0\0\0".to_vec()].concat(),
            [head(20, 2 | nest), head(8, 1), be(1).into(), head(8, 2), be(10).into()].concat(),
            head(44, 1 | nest),
            [head(8, 1), b"cmp\0".to_vec()].concat(),
            [head(32, 2 | nest), head(8, 1), be(1).into(), head(8, 2), be(0).into()].concat(),
            [head(12, 3 | nest), head(8, 1), 1337u32.to_ne_bytes().into()].concat(),
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_message_and_attribute_is_aligned() {
        let mut message = Vec::new();
        string(&mut message, 1, "gauze");
        assert_eq!(message, [10, 0, 1, 0, b'g', b'a', b'u', b'z', b'e', 0, 0, 0]);
    }

    #[test]
    fn acknowledgements_are_counted_up_to_the_first_error() {
        let two = [answer(0), answer(0)].concat();
        assert!(matches!(read_answers(&two), Ok(2)));
        let refused = [answer(0), answer(libc::EPERM)].concat();
        let error = read_answers(&refused).expect_err("refused").to_string();
        assert!(error.contains("NET_ADMIN"), "{error}");
        assert!(matches!(read_answers(&answer(libc::EOPNOTSUPP)), Err(ProgramError::NotSupported(_))));
        for garbled in [&two[..10], &[0; 16], &[255; 40]] {
            assert!(matches!(read_answers(garbled), Err(ProgramError::Garbled)), "{garbled:?}");
        }
    }
}
