//! Two endpoints on loopback: what both ends of a link see alike, and who gets none.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::crypto::aws_lc_rs;
use s2n_quic::{
    Client, Server,
    client::Connect,
    provider::{limits::Limits, tls::rustls as provider},
};

use super::{Link, LinkError, QuicDialler, QuicListener, tls};

/// Every wait on the other end ends here.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} took too long"))
}

fn listener() -> QuicListener {
    QuicListener::bind(([127, 0, 0, 1], 0).into()).expect("loopback can be bound")
}

async fn pair(listener: &mut QuicListener) -> (Link, Link) {
    let dialler = QuicDialler::bind().expect("a socket can be made");
    let address = listener.address();
    let (dialled, accepted) = within("a link", async {
        tokio::join!(dialler.dial(address), listener.accept())
    })
    .await;
    let accepted = accepted
        .expect("the endpoint lives")
        .expect("a link with a binding");
    (dialled.expect("loopback answers"), accepted)
}

#[tokio::test]
async fn both_ends_see_one_binding_and_a_hybrid_key_exchange() {
    let mut listener = listener();
    let (dialled, accepted) = pair(&mut listener).await;
    assert_eq!(dialled.info().binding, accepted.info().binding);
    assert_eq!(dialled.info().key_exchange, "X25519MLKEM768");
    assert_eq!(accepted.info().key_exchange, "X25519MLKEM768");
    let (again, _) = pair(&mut listener).await;
    assert_ne!(
        again.info().binding,
        dialled.info().binding,
        "every link has its own binding"
    );
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_says_where_it_ends() {
    let mut listener = listener();
    let (mut dialled, mut accepted) = pair(&mut listener).await;
    within("the exchange", async {
        let (mut send, mut receive) = dialled.open().await.expect("a stream");
        send.send(Bytes::from_static(b"hello, and more"))
            .await
            .expect("sent");
        send.finish().expect("finished");
        let (mut back, mut arrived) = accepted.accept().await.expect("the stream arrives");
        assert_eq!(
            &arrived.read_exact(5).await.expect("five bytes")[..],
            b"hello"
        );
        assert_eq!(
            &arrived.read_exact(10).await.expect("the rest")[..],
            b", and more"
        );
        assert!(arrived.read_or_end(1).await.expect("a clean end").is_none());
        back.send(Bytes::from_static(b"so")).await.expect("sent");
        back.finish().expect("finished");
        let cut = receive
            .read_exact(5)
            .await
            .expect_err("only two bytes came");
        assert!(cut.to_string().contains("after 2 of 5 bytes"), "{cut}");
    })
    .await;
}

#[tokio::test]
async fn a_close_tells_its_code_to_the_other_end() {
    let mut listener = listener();
    let (dialled, mut accepted) = pair(&mut listener).await;
    dialled.close(7);
    let closed = within("the close", accepted.accept())
        .await
        .expect_err("the link is closed");
    assert!(matches!(closed, LinkError::Closed(7)), "{closed:?}");
}

#[tokio::test]
async fn a_client_that_offers_only_classical_key_exchange_gets_no_link() {
    let mut listener = listener();
    let mut classical = aws_lc_rs::default_provider();
    classical.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let config = tls::client_with(Arc::new(classical)).expect("a client configuration");
    // The refusal shows as silence; the default patience of 10 s would only make the test slow.
    let limits = Limits::new()
        .with_max_handshake_duration(Duration::from_secs(2))
        .expect("a valid duration");
    let client = match Client::builder().with_tls(provider::Client::from(config)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let client = client
        .with_io("127.0.0.1:0")
        .expect("loopback can be bound")
        .with_limits(limits)
        .expect("limits are plain values")
        .start()
        .expect("a client endpoint");
    let connect = Connect::new(listener.address()).with_server_name(tls::SERVER_NAME);
    let refused = within("the refusal", async {
        tokio::select! {
            connected = client.connect(connect) => connected.is_err(),
            accepted = listener.accept() => panic!("the listener took it: {accepted:?}"),
        }
    })
    .await;
    assert!(refused, "the classical client was connected");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named_for_what_it_is() {
    let mut config = tls::server().expect("a server configuration");
    config.alpn_protocols = vec![b"h3".to_vec()];
    let server = match Server::builder().with_tls(provider::Server::from(config)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let mut server = server
        .with_io("127.0.0.1:0")
        .expect("loopback can be bound")
        .start()
        .expect("a server endpoint");
    let address = server.local_addr().expect("it is bound");
    let dialler = QuicDialler::bind().expect("a socket can be made");
    let error = within("the refusal", async {
        tokio::select! {
            dialled = dialler.dial(address) => dialled.expect_err("another protocol"),
            accepted = server.accept() => panic!("the server took it: {accepted:?}"),
        }
    })
    .await;
    assert!(matches!(error, LinkError::OtherProtocol { .. }), "{error}");
    let text = format!("something answers at {address}, but it is no packhorse node");
    assert!(error.to_string().starts_with(&text), "{error}");
}

#[tokio::test]
async fn an_address_in_use_is_named_in_the_error() {
    let first = listener();
    let error = QuicListener::bind(first.address()).expect_err("the port is taken");
    assert!(
        error.to_string().contains(&first.address().to_string()),
        "{error}"
    );
}
