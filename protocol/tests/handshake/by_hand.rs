//! The handshake once more, written down from SPEC.md with plain primitives.
//!
//! It shares no code with the crate beyond the primitives, so it checks labels, lengths and
//! layouts independently; and it can say whatever an attacker could say.

use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signer, SigningKey};
use ml_kem::array::Array;
use ml_kem::{Decapsulate, DecapsulationKey, EncapsulationKey, KeyExport, MlKem768};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

pub(crate) const PROOF_PLAIN_BYTES: usize = 2_032;
pub(crate) const VERDICT_PLAIN_BYTES: usize = 4_080;

/// A link's kind and binding.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) kind: u8,
    pub(crate) binding: [u8; 32],
}

/// Label and parts, each behind its length.
pub(crate) fn joined(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(*part);
    }
    out
}

pub(crate) fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    *blake3::hash(&joined(label, parts)).as_bytes()
}

pub(crate) fn mac(key: &[u8], input: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), input);
    tag.as_ref().try_into().expect("32 bytes")
}

/// HKDF-Expand to one block.
pub(crate) fn expand(key: &[u8; 32], label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut info = joined(label, parts);
    info.push(1);
    mac(key, &info)
}

fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"))
}

pub(crate) fn seal(key: &[u8; 32], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = plaintext.to_vec();
    aead(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(associated),
            &mut out,
        )
        .expect("short");
    out
}

pub(crate) fn open(key: &[u8; 32], associated: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
    let mut out = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    aead(key)
        .open_in_place(nonce, Aad::from(associated), &mut out)
        .expect("it was sealed by the schedule of SPEC.md")
        .to_vec()
}

/// Writes the knock for everything that stands before it.
pub(crate) fn knock(hello: &mut [u8], place: Place, responder: &[u8; 32]) {
    let (before, knock) = hello.split_at_mut(1_261);
    let key = blake3::derive_key("packhorse knock", responder);
    let input = joined("packhorse knock", &[before, &[place.kind], &place.binding]);
    knock.copy_from_slice(&blake3::keyed_hash(&key, &input).as_bytes()[..16]);
}

/// A dialler that may say anything.
pub(crate) struct Dialler {
    pub(crate) place: Place,
    pub(crate) hello: Vec<u8>,
    kem: DecapsulationKey<MlKem768>,
}

const X25519: [u8; 32] = [0x33; 32];

impl Dialler {
    pub(crate) fn new(place: Place, responder: [u8; 32], versions: (u16, u16)) -> Self {
        let kem = DecapsulationKey::<MlKem768>::from_seed(Array([0x22; 64]));
        let mut hello = b"packhorse".to_vec();
        hello.extend(versions.0.to_be_bytes());
        hello.extend(versions.1.to_be_bytes());
        hello.extend([0x11; 32]);
        hello.extend(kem.encapsulation_key().to_bytes().as_slice());
        hello.extend(MontgomeryPoint::mul_base_clamped(X25519).to_bytes());
        hello.extend([0; 16]);
        knock(&mut hello, place, &responder);
        Self { place, hello, kem }
    }

    /// The secrets that follow from a Reply to `hello`.
    pub(crate) fn keys(&self, reply: &[u8]) -> Keys {
        let (clear, sealed) = reply.split_at(1_155);
        let kem = self
            .kem
            .decapsulate(&Array::try_from(&clear[35..1_123]).expect("1,088"));
        let theirs: [u8; 32] = clear[1_123..].try_into().expect("32 bytes");
        let x25519 = MontgomeryPoint(theirs).mul_clamped(X25519).to_bytes();
        Keys::new(self.place, &self.hello, clear, &kem.0, &x25519, |keys| {
            keys.reply = open(
                &expand(&keys.prk, "packhorse 1 reply", &[]),
                &keys.t1,
                sealed,
            );
            sealed.to_vec()
        })
    }
}

/// A responder that may say anything: replies with this sealed part, written from T1.
pub(crate) fn reply(
    place: Place,
    hello: &[u8],
    plain: impl FnOnce(&[u8; 32]) -> Vec<u8>,
) -> (Vec<u8>, Keys) {
    let kem =
        EncapsulationKey::<MlKem768>::new(&Array::try_from(&hello[45..1_229]).expect("1,184"))
            .expect("a dialler of ours made it");
    let theirs: [u8; 32] = hello[1_229..1_261].try_into().expect("32 bytes");
    let (ciphertext, kem) = kem.encapsulate_deterministic(&Array([0x44; 32]));
    let x25519 = MontgomeryPoint(theirs).mul_clamped(X25519).to_bytes();
    let mut bytes = vec![1, 0, 1];
    bytes.extend([0x55; 32]);
    bytes.extend(ciphertext.as_slice());
    bytes.extend(MontgomeryPoint::mul_base_clamped(X25519).to_bytes());
    let clear = bytes.clone();
    let keys = Keys::new(place, hello, &clear, &kem.0, &x25519, |keys| {
        let key = expand(&keys.prk, "packhorse 1 reply", &[]);
        let sealed = seal(&key, &keys.t1, &plain(&keys.t1));
        bytes.extend(&sealed);
        sealed
    });
    (bytes, keys)
}

/// What both ends know after Reply.
pub(crate) struct Keys {
    pub(crate) prk: [u8; 32],
    pub(crate) t1: [u8; 32],
    pub(crate) t2: [u8; 32],
    pub(crate) reply: Vec<u8>,
}

impl Keys {
    fn new(
        place: Place,
        hello: &[u8],
        clear: &[u8],
        kem: &[u8; 32],
        x25519: &[u8; 32],
        sealed: impl FnOnce(&mut Self) -> Vec<u8>,
    ) -> Self {
        let t1 = hash(
            "packhorse 1 T1",
            &[&[place.kind], &place.binding, hello, clear],
        );
        let prk = mac(&t1, &[&kem[..], x25519].concat());
        let mut keys = Self {
            prk,
            t1,
            t2: [0; 32],
            reply: Vec::new(),
        };
        let sealed = sealed(&mut keys);
        keys.t2 = hash("packhorse 1 T2", &[&t1, &sealed]);
        keys
    }

    pub(crate) fn seal_proof(&self, plain: &[u8]) -> Vec<u8> {
        seal(
            &expand(&self.prk, "packhorse 1 proof", &[&self.t2]),
            &self.t2,
            plain,
        )
    }

    pub(crate) fn t3(&self, proof: &[u8]) -> [u8; 32] {
        hash("packhorse 1 T3", &[&self.t2, proof])
    }

    pub(crate) fn verdict_key(&self, t3: &[u8; 32]) -> [u8; 32] {
        expand(&self.prk, "packhorse 1 verdict", &[t3])
    }

    pub(crate) fn session(&self, t3: &[u8; 32], verdict: &[u8]) -> [u8; 32] {
        expand(
            &self.prk,
            "packhorse 1 session",
            &[t3, blake3::hash(verdict).as_bytes()],
        )
    }

    /// A Proof's plaintext that is right in every field, to be changed.
    pub(crate) fn proof_plain(&self, dialler: &SigningKey, responder: &[u8; 32]) -> Vec<u8> {
        let id = dialler.verifying_key().to_bytes();
        let mut plain = vec![0; PROOF_PLAIN_BYTES];
        plain[..32].copy_from_slice(&id);
        write_text(&mut plain[32..], b"mallory");
        plain[98] = 1;
        write_text(&mut plain[99..], b"host:7433");
        plain[1_143..1_147].copy_from_slice(&3_u32.to_be_bytes());
        plain[1_147..1_155].copy_from_slice(&4_u64.to_be_bytes());
        plain[1_155..1_163].copy_from_slice(&5_u64.to_be_bytes());
        let signed = joined("packhorse 1 initiator", &[&self.t2, responder, &id]);
        plain[1_188..1_252].copy_from_slice(&dialler.sign(&signed).to_bytes());
        plain
    }
}

/// Makes a Proof's plaintext ask to be paired.
pub(crate) fn ask(plain: &mut [u8], text: &[u8]) {
    plain[1_252] = 2;
    write_text(&mut plain[1_301..1_559], text);
}

/// A text in its slot.
pub(crate) fn write_text(slot: &mut [u8], text: &[u8]) {
    slot[..2].copy_from_slice(&(text.len() as u16).to_be_bytes());
    slot[2..2 + text.len()].copy_from_slice(text);
}

/// The sealed part of a Reply by this responder.
pub(crate) fn reply_plain(responder: &SigningKey, t1: &[u8; 32]) -> Vec<u8> {
    let id = responder.verifying_key().to_bytes();
    let mut plain = id.to_vec();
    plain.extend([0; 8]);
    plain.extend(
        responder
            .sign(&joined("packhorse 1 responder", &[t1, &id]))
            .to_bytes(),
    );
    plain
}

/// A Verdict's plaintext that accepts, to be changed.
pub(crate) fn verdict_plain() -> Vec<u8> {
    let mut plain = vec![0; VERDICT_PLAIN_BYTES];
    plain[0] = 1;
    write_text(&mut plain[1..], b"relay");
    plain[1_112..1_116].copy_from_slice(&8_u32.to_be_bytes());
    plain[1_116..1_124].copy_from_slice(&9_u64.to_be_bytes());
    plain[1_124] = 1;
    write_text(&mut plain[1_125..], b"message.send:*");
    plain
}

/// The first frame of the dialler on a control stream of its own with number 0.
pub(crate) fn first_frame(session: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let key = expand(session, "packhorse 1 stream", &[&[1], &[0; 4], &[1]]);
    let head = (plaintext.len() as u32 + 16).to_be_bytes();
    let associated = [&[1][..], &[0; 4], &[0; 8], &head].concat();
    [&head[..], &seal(&key, &associated, plaintext)].concat()
}

/// What both ends of a pairing show.
pub(crate) fn compare(session: &[u8; 32], responder: &[u8; 32], dialler: &[u8; 32]) -> String {
    let block = expand(session, "packhorse 1 compare", &[responder, dialler]);
    let bits: String = block.iter().map(|byte| format!("{byte:08b}")).collect();
    let alphabet: Vec<char> = "qpzry9x8gf2tvdw0s3jn54khce6mua7l".chars().collect();
    let characters = |from: usize| -> String {
        (from..from + 20)
            .step_by(5)
            .map(|at| alphabet[usize::from_str_radix(&bits[at..at + 5], 2).expect("bits")])
            .collect()
    };
    [characters(0), characters(20), characters(40)].join("-")
}
