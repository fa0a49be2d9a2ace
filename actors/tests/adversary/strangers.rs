//! Who has not proven to be a peer: what it sends, and all it ever gets back.
//!
//! The other end of these links is written from the specification by hand, so it may say what ours
//! never would.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use packhorse_actors::link::{LinkError, QuicDialler};

use crate::{
    ADVERSARY, Scene, VICTIM,
    by_hand::{self, Dialler, Place},
    live_common::{DEADLINE, identity},
};

/// The only code that a stranger ever sees.
const STRANGER: u64 = 2;
/// Reply has this many bytes, a Verdict that many.
const REPLY: usize = 1_275;
const VERDICT: usize = 4_096;

/// What a stranger says first.
type Hello = fn(&mut Dialler);
/// What it says then, changed from a Proof without a fault.
type Proof = fn(&mut Vec<u8>, &by_hand::Keys, &[u8; 32]);

/// One stranger.
pub(crate) struct Stranger {
    what: &'static str,
    hello: Hello,
    proof: Option<Proof>,
    /// How many bytes it is sent in all.
    hears: usize,
}

const fn knocks(what: &'static str, hello: Hello) -> Stranger {
    Stranger {
        what,
        hello,
        proof: None,
        hears: 0,
    }
}

const fn proves(what: &'static str, proof: Proof, hears: usize) -> Stranger {
    Stranger {
        what,
        hello: |_| {},
        proof: Some(proof),
        hears,
    }
}

#[rustfmt::skip] // One line, one stranger.
pub(crate) const STRANGERS: &[Stranger] = &[
    knocks("another protocol", |dialler| dialler.hello = b"GET / HTTP/1.1\r\n\r\n".repeat(80)),
    knocks("a Hello that is too short", |dialler| dialler.hello.truncate(1_276)),
    knocks("one byte", |dialler| dialler.hello.truncate(1)),
    knocks("another magic", |dialler| { dialler.hello[0] = b'P'; mend(dialler, VICTIM); }),
    knocks("no knock", |dialler| dialler.hello[1_261..].fill(0)),
    knocks("a knock for another node", |dialler| mend(dialler, ADVERSARY)),
    knocks("a knock for another link", |dialler| {
        let place = Place { binding: [0; 32], ..dialler.place };
        by_hand::knock(&mut dialler.hello, place, &bytes(VICTIM));
    }),
    knocks("versions upside down", |dialler| { versions(dialler, 2, 1); mend(dialler, VICTIM); }),
    Stranger { hears: 5, ..knocks("versions of the future", |dialler| { versions(dialler, 7, 9); mend(dialler, VICTIM); }) },
    knocks("versions of the future without a knock", |dialler| versions(dialler, 7, 9)),
    knocks("an encapsulation key over the modulus", |dialler| { dialler.hello[45..48].fill(0xff); mend(dialler, VICTIM); }),
    knocks("a point of low order", |dialler| { dialler.hello[1_229..1_261].fill(0); mend(dialler, VICTIM); }),
    proves("a proof of zeros", |plain, _, _| plain.fill(0), REPLY),
    proves("a foreign signature", |plain, keys, id| sign(plain, &SigningKey::from_bytes(&[77; 32]), keys, id), REPLY),
    proves("a name with control characters", |plain, _, _| by_hand::write_text(&mut plain[32..], b"a\x1b[2Jb"), REPLY),
    proves("a name that turns the text around", |plain, _, _| by_hand::write_text(&mut plain[32..], "a\u{202e}b".as_bytes()), REPLY),
    proves("no name", |plain, _, _| plain[32..98].fill(0), REPLY),
    proves("a name longer than its place", |plain, _, _| plain[32..34].copy_from_slice(&65_u16.to_be_bytes()), REPLY),
    proves("a name that is no text", |plain, _, _| by_hand::write_text(&mut plain[32..], &[0xff, 0xfe]), REPLY),
    proves("five addresses", |plain, _, _| plain[98] = 5, REPLY),
    proves("an address with a newline", |plain, _, _| by_hand::write_text(&mut plain[99..], b"host\n:1"), REPLY),
    proves("the id of the node itself", |plain, _, id| plain[..32].copy_from_slice(id), REPLY),
    proves("a weak id", |plain, _, _| { plain[..32].fill(0); plain[0] = 1; }, REPLY),
    proves("an unknown way of pairing", |plain, _, _| plain[1_252] = 99, REPLY),
    proves("nothing wrong, by nobody who is paired here", |_, _, _| {}, REPLY + VERDICT),
    proves("a ticket that was never made", |plain, _, _| plain[1_252] = 1, REPLY + VERDICT),
];

fn bytes(seed: u8) -> [u8; 32] {
    *identity(seed).id().as_bytes()
}

fn mend(dialler: &mut Dialler, responder: u8) {
    let place = dialler.place;
    by_hand::knock(&mut dialler.hello, place, &bytes(responder));
}

fn versions(dialler: &mut Dialler, lowest: u16, highest: u16) {
    dialler.hello[9..11].copy_from_slice(&lowest.to_be_bytes());
    dialler.hello[11..13].copy_from_slice(&highest.to_be_bytes());
}

fn sign(plain: &mut [u8], key: &SigningKey, keys: &by_hand::Keys, responder: &[u8; 32]) {
    let parts = [&keys.t2[..], responder, &plain[..32]];
    let signed = by_hand::joined("packhorse 1 initiator", &parts);
    plain[1_188..1_252].copy_from_slice(&key.sign(&signed).to_bytes());
}

impl Stranger {
    /// Says what it says and listens until it is closed out.
    pub(crate) async fn check(&self, scene: &mut Scene) {
        let within = tokio::time::timeout(DEADLINE, self.visit(scene));
        let (heard, end) = within
            .await
            .unwrap_or_else(|_| panic!("{}: it was kept", self.what));
        assert_eq!(heard, self.hears, "{}", self.what);
        let is_code = matches!(end, LinkError::Closed(STRANGER));
        assert!(is_code, "{}: {end}", self.what);
        scene.befriend(self.what).await;
    }

    async fn visit(&self, scene: &Scene) -> (usize, LinkError) {
        let at = scene.victim.tree().listening[0];
        let mut link = scene.dialler.dial(at).await.unwrap();
        let place = Place {
            kind: 1,
            binding: link.info().binding,
        };
        let mut dialler = Dialler::new(place, bytes(VICTIM), (1, 1));
        (self.hello)(&mut dialler);
        let (mut send, mut receive) = link.open().await.unwrap();
        send.send(dialler.hello.clone().into()).await.unwrap();
        let mut heard = 0;
        if let Some(proof) = self.proof {
            let reply = receive.read_exact(REPLY).await.unwrap();
            heard += reply.len();
            let keys = dialler.keys(&reply);
            // A seed that nobody knows.
            let mut plain = keys.proof_plain(&SigningKey::from_bytes(&[99; 32]), &bytes(VICTIM));
            proof(&mut plain, &keys, &bytes(VICTIM));
            send.send(keys.seal_proof(&plain).into()).await.unwrap();
        } else if dialler.hello.len() < 1_277 {
            let _ = send.finish();
        }
        let end = loop {
            match receive.read_or_end(1).await {
                Ok(Some(byte)) => heard += byte.len(),
                Ok(None) => match link.accept().await {
                    Ok(_) => panic!("{}: a stream for a stranger", self.what),
                    Err(end) => break end,
                },
                Err(end) => break end,
            }
        };
        (heard, end)
    }
}

/// Links that say nothing at all, and links of which every byte comes late.
pub(crate) async fn silent_links_are_closed(scene: &Scene) {
    let at = scene.victim.tree().listening[0];
    let dialler = QuicDialler::bind().unwrap();
    let mut silent = dialler.dial(at).await.unwrap();
    let mut slow = dialler.dial(at).await.unwrap();
    let (mut send, _receive) = slow.open().await.unwrap();
    let trickle = async {
        // The sleep is the slowness that is tested, and ends with the link.
        while send.send(vec![b'p'].into()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ends = async { tokio::join!(silent.accept(), slow.accept(), trickle) };
    let ends = tokio::time::timeout(DEADLINE, ends).await;
    let (silent, slow, ()) = ends.expect("both are closed");
    for end in [silent, slow] {
        let end = end.expect_err("no stream for a stranger");
        assert!(matches!(end, LinkError::Closed(STRANGER)), "{end}");
    }
}
