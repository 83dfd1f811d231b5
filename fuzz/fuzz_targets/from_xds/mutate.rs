//! Protobuf messages, changed field by field without knowing their types: what looks like a message is one, lengths
//! are right again afterwards.

/// A field: its number, and what stands there.
#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

const DEPTH_MAX: usize = 24;

/// One to four changes of a message; `None` if the bytes are none.
pub fn message(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut fields = parse(bytes, 0)?;
    let mut draw = Draw(u64::from(seed) << 1 | 1);
    for _ in 0..=draw.below(4) {
        change(&mut fields, &mut draw);
    }
    let mut changed = Vec::new();
    write(&fields, &mut changed);
    Some(changed)
}

/// Draws (splitmix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Goes down to some depth, and changes one field there.
fn change(fields: &mut Vec<Field>, draw: &mut Draw) {
    let below: Vec<usize> =
        (0..fields.len()).filter(|at| matches!(fields[*at].value, Value::Message(_))).collect();
    if !below.is_empty() && draw.below(5) > 0 {
        let at = below[draw.below(below.len())];
        if let Value::Message(inner) = &mut fields[at].value {
            return change(inner, draw);
        }
    }
    if fields.is_empty() || draw.below(12) == 0 {
        let number = 1 + draw.below(20) as u64;
        return fields.push(Field { number, value: fresh(draw) });
    }
    let at = draw.below(fields.len());
    let other = draw.below(fields.len());
    match draw.below(8) {
        0 => drop(fields.remove(at)),
        1 => fields.push(fields[at].clone()),
        2 => fields.swap(at, other),
        3 => fields[at].value = fields[other].value.clone(),
        4 => fields[at].number = 1 + draw.below(60) as u64,
        5 => fields[at].value = fresh(draw),
        _ => alter(&mut fields[at].value, draw),
    }
}

/// What configuration is made of.
const WORDS: [&str; 24] = [
    "",
    "*",
    "*.shop",
    "cart",
    "gauze",
    "/",
    "/a",
    ":method",
    ":path",
    ":authority",
    "x-a",
    "cluster/shop/cart/80",
    "routes/shop/cart/80",
    "spiffe://cluster.local/ns/shop/sa/web",
    "(a|b)*",
    "(",
    "10.0.0.1",
    "::1",
    "requires",
    "closed",
    "1,2",
    "\u{e4}",
    "\n",
    "fe80::1%eth0",
];

const NUMBERS: [u64; 12] =
    [0, 1, 2, 80, 503, 65_535, 65_536, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX];

fn fresh(draw: &mut Draw) -> Value {
    match draw.below(6) {
        0 | 1 => Value::Varint(NUMBERS[draw.below(NUMBERS.len())]),
        2 => Value::Message(Vec::new()),
        3 => Value::Fixed64(draw.next().to_le_bytes()),
        _ => Value::Bytes(WORDS[draw.below(WORDS.len())].as_bytes().to_vec()),
    }
}

fn alter(value: &mut Value, draw: &mut Draw) {
    match value {
        Value::Varint(number) => match draw.below(3) {
            0 => *number = NUMBERS[draw.below(NUMBERS.len())],
            1 => *number = number.wrapping_add(1),
            _ => *number ^= 1 << draw.below(64),
        },
        Value::Fixed64(bytes) => bytes[draw.below(8)] ^= 1 << draw.below(8),
        Value::Fixed32(bytes) => bytes[draw.below(4)] ^= 1 << draw.below(8),
        Value::Bytes(bytes) if bytes.is_empty() || draw.below(3) == 0 => {
            *bytes = WORDS[draw.below(WORDS.len())].as_bytes().to_vec();
        }
        Value::Bytes(bytes) => {
            let at = draw.below(bytes.len());
            match draw.below(3) {
                0 => bytes[at] = draw.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"/.*:aA0-~%"[draw.below(10)]),
            }
        }
        Value::Message(fields) => change(fields, draw),
    }
}

fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                match parse(inner, depth + 1).filter(|_| !inner.is_empty()) {
                    Some(fields) => Value::Message(fields),
                    None => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for field in fields {
        let mut key = |wire: u64| write_varint(field.number << 3 | wire, out);
        match &field.value {
            Value::Varint(number) => {
                key(0);
                write_varint(*number, out);
            }
            Value::Fixed64(bytes) => {
                key(1);
                out.extend_from_slice(bytes);
            }
            Value::Fixed32(bytes) => {
                key(5);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => {
                key(2);
                write_varint(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Value::Message(fields) => {
                let mut inner = Vec::new();
                write(fields, &mut inner);
                key(2);
                write_varint(inner.len() as u64, out);
                out.extend_from_slice(&inner);
            }
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
