//! First packets of QUIC, written by hand, so that one socket can pretend to be thousands of
//! diallers that never finish what they began.
//!
//! RFC 9000 sections 17.2.2 and 17.2.5, RFC 9001 section 5.

use ring::{aead, hkdf};

const VERSION_1: u32 = 1;
/// RFC 9001, section 5.2.
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const DATAGRAM_BYTES: usize = 1_200;
const TAG_BYTES: usize = 16;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

struct Keys {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    head: aead::quic::HeaderProtectionKey,
}

impl Keys {
    /// What a dialler seals its first packets with.
    fn of(destination: &[u8]) -> Self {
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &SALT).extract(destination);
        let secret = expand::<32>(&initial, b"client in");
        let client = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
        let key = expand::<16>(&client, b"quic key");
        let head = expand::<16>(&client, b"quic hp");
        Self {
            key: aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).unwrap()),
            iv: expand::<12>(&client, b"quic iv"),
            head: aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &head).unwrap(),
        }
    }

    fn nonce(&self, number: u8) -> aead::Nonce {
        let mut nonce = self.iv;
        nonce[11] ^= number;
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

/// HKDF-Expand-Label of TLS 1.3.
fn expand<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> [u8; N] {
    let full = [b"tls13 ", label].concat();
    let (length, label_length) = ([0, N as u8], [full.len() as u8]);
    let info: [&[u8]; 4] = [&length, &label_length, &full, &[0]];
    let mut out = [0; N];
    secret
        .expand(&info, Length(N))
        .and_then(|okm| okm.fill(&mut out))
        .unwrap();
    out
}

/// The frames of a datagram's first packet: what a real dialler said in it.
pub(crate) struct Opened {
    pub(crate) source: Vec<u8>,
    pub(crate) frames: Vec<u8>,
}

/// Opens a dialler's first packet.
pub(crate) fn open(datagram: &[u8]) -> Option<Opened> {
    if datagram.first()? & 0xf0 != 0xc0 {
        return None;
    }
    let (destination, at) = id_at(datagram, 5)?;
    let (source, at) = id_at(datagram, at)?;
    let (token, at) = varint_at(datagram, at)?;
    let (length, number_at) = varint_at(datagram, at + token)?;
    let keys = Keys::of(destination);
    let sample = datagram.get(number_at + 4..number_at + 20)?;
    let mask = keys.head.new_mask(sample).ok()?;
    let mut head = datagram.get(..number_at)?.to_vec();
    head[0] ^= mask[0] & 0x0f;
    let number_bytes = usize::from(head[0] & 3) + 1;
    let mut number = 0;
    for index in 0..number_bytes {
        number = datagram[number_at + index] ^ mask[1 + index];
        head.push(number);
    }
    let mut sealed = datagram
        .get(number_at + number_bytes..number_at + length)?
        .to_vec();
    let frames = keys
        .key
        .open_in_place(keys.nonce(number), aead::Aad::from(head), &mut sealed)
        .ok()?;
    Some(Opened {
        source: source.to_vec(),
        frames: frames.to_vec(),
    })
}

/// Writes a first packet with these frames, filled up to a whole datagram.
pub(crate) fn write(
    destination: &[u8],
    source: &[u8],
    token: &[u8],
    number: u8,
    frames: &[u8],
) -> Vec<u8> {
    let keys = Keys::of(destination);
    let mut head = vec![0xc0];
    head.extend(VERSION_1.to_be_bytes());
    head.push(destination.len() as u8);
    head.extend(destination);
    head.push(source.len() as u8);
    head.extend(source);
    head.extend((0x4000 | token.len() as u16).to_be_bytes());
    head.extend(token);
    let number_at = head.len() + 2;
    // Longer than a datagram where a token takes room: loopback carries it.
    let payload = frames
        .len()
        .max(DATAGRAM_BYTES.saturating_sub(number_at + 1 + TAG_BYTES));
    head.extend((0x4000 | (1 + payload + TAG_BYTES) as u16).to_be_bytes());
    head.push(number);
    let mut sealed = frames.to_vec();
    sealed.resize(payload, 0);
    keys.key
        .seal_in_place_append_tag(keys.nonce(number), aead::Aad::from(&head), &mut sealed)
        .unwrap();
    let mut packet = [head, sealed].concat();
    let mask = keys
        .head
        .new_mask(&packet[number_at + 4..number_at + 20])
        .unwrap();
    packet[0] ^= mask[0] & 0x0f;
    packet[number_at] ^= mask[1];
    packet
}

/// What a Retry asks for: the new destination and the token to show.
pub(crate) fn retry(datagram: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if datagram.first()? & 0xf0 != 0xf0 {
        return None;
    }
    let (_, at) = id_at(datagram, 5)?;
    let (source, at) = id_at(datagram, at)?;
    let token = datagram.get(at..datagram.len().checked_sub(TAG_BYTES)?)?;
    Some((source.to_vec(), token.to_vec()))
}

fn id_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + 1 + usize::from(*bytes.get(at)?);
    Some((bytes.get(at + 1..end)?, end))
}

fn varint_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    let length = 1 << (first >> 6);
    let mut value = usize::from(first & 0x3f);
    for byte in bytes.get(at + 1..at + length)? {
        value = value << 8 | usize::from(*byte);
    }
    Some((value, at + length))
}
