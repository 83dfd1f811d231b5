//! Who gets configuration, and what is sent when.

use tonic::Code;

use crate::client::{Running, asks_for, shop};

#[tokio::test]
async fn a_client_without_certificate_gets_no_configuration() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let refused = running.stream(None).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_not_even_let_in() {
    let (directory, elsewhere) = (shop(), shop());
    let running = Running::start(directory.path()).await;
    let stranger = Running::start(elsewhere.path()).await;
    let credentials = stranger.enroll("shop.web-0").await;
    // In TLS 1.3 the client learns of it after its own handshake.
    let refused = match running.try_connect(Some(credentials)).await {
        Ok(_) => running.stream(Some(stranger.enroll("shop.web-0").await)).await.err(),
        Err(_) => None,
    };
    assert!(
        refused.is_none_or(|status| status.code() == Code::Unknown || status.code() == Code::Unavailable)
    );
    stranger.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_reason_if_the_client() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    for (why, node_id, name, code, expected) in [
        ("says nothing of itself", "", "inbound/shop/web-0", Code::InvalidArgument, "node.id"),
        ("is another pod", "shop/cart-0", "inbound/shop/cart-0", Code::PermissionDenied, "M1201"),
        ("is a pod that nobody knows", "shop/web-9", "inbound/shop/web-9", Code::PermissionDenied, "M1201"),
        (
            "asks for another pod's inbound",
            "shop/web-0",
            "inbound/shop/cart-0",
            Code::PermissionDenied,
            "M1202",
        ),
        (
            "asks as another namespace",
            "shop/web-0",
            "outbound/bank/10.96.0.1:80",
            Code::PermissionDenied,
            "M1202",
        ),
    ] {
        let mut stream = running.stream(Some(running.enroll("shop.web-0").await)).await.unwrap();
        stream.send([asks_for(node_id, &[name])]).await;
        let ended = stream.next().await.expect_err(why);
        assert_eq!(ended.code(), code, "{why}: {ended}");
        assert!(ended.message().contains(expected), "{why}: {ended}");
    }
    running.stop().await;
}
