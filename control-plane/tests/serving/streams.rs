//! Who gets configuration, and what is sent when.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use gauze_model::Name;
use gauze_xds::{DeltaClient, Node};
use tonic::Code;

use crate::client::{AdsStream, Running, asks_for, pod, service, shop, write};

/// A proxy as far as the control plane can tell.
pub(crate) struct Proxy {
    client: DeltaClient,
    stream: AdsStream,
    received: Vec<String>,
}

impl Proxy {
    pub(crate) async fn connect(running: &Running, pod: &str) -> Proxy {
        let node = Node { id: format!("shop/{pod}"), ..Node::default() };
        let mut client = DeltaClient::new(node);
        client.want(Name::Inbound { namespace: "shop".to_owned(), pod: pod.to_owned() });
        Proxy::reconnect(running, pod, client).await
    }

    async fn reconnect(running: &Running, pod: &str, mut client: DeltaClient) -> Proxy {
        let credentials = running.enroll(&format!("shop.{pod}")).await;
        let stream = running.stream(Some(credentials)).await.unwrap();
        stream.send(client.hello()).await;
        Proxy { client, stream, received: Vec::new() }
    }

    pub(crate) async fn dial(&mut self, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let requests = self.client.want(Name::Outbound { viewer: "shop".to_owned(), address });
        self.stream.send(requests).await;
    }

    async fn take_one(&mut self) {
        let response = self.stream.next().await.unwrap();
        self.received.extend(response.resources.iter().map(|resource| resource.name.clone()));
        self.received.extend(response.removed_resources.iter().cloned());
        self.stream.send(self.client.on_response(response)).await;
    }

    /// Takes responses until `holds`.
    pub(crate) async fn until(&mut self, holds: impl Fn(&DeltaClient) -> bool) {
        while !holds(&self.client) {
            self.take_one().await;
        }
    }

    /// The endpoints of the Service `cart`, as far as they are known.
    fn cart(&self) -> BTreeSet<String> {
        endpoints(&self.client)
    }
}

fn endpoints(client: &DeltaClient) -> BTreeSet<String> {
    let snapshot = client.snapshot();
    let sets = snapshot.endpoints.iter().filter(|(name, _)| name.to_string() == "cluster/shop/cart/80");
    sets.flat_map(|(_, set)| set.endpoints.iter().map(|endpoint| endpoint.address.to_string())).collect()
}

/// Whether listeners for both directions are current: all that they lead to is held.
pub(crate) fn is_served(client: &DeltaClient) -> bool {
    client.snapshot().listeners.len() == 2
}

fn slice(addresses: impl IntoIterator<Item = String>) -> String {
    let mut text = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: cart-1, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
"
    .to_owned();
    for address in addresses {
        text += &format!("- {{addresses: [{address}], conditions: {{ready: true}}}}\n");
    }
    text
}

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

#[tokio::test]
async fn a_change_of_a_file_reaches_the_proxies_that_use_it() {
    let directory = shop();
    write(directory.path(), "cart-slice.yaml", &slice(["10.1.0.2".to_owned()]));
    let running = Running::start(directory.path()).await;
    let mut web = Proxy::connect(&running, "web-0").await;
    web.dial("10.96.0.2:80").await;
    web.until(is_served).await;
    assert_eq!(web.cart(), BTreeSet::from(["10.1.0.2:8080".to_owned()]));

    write(directory.path(), "cart-slice.yaml", &slice(["10.1.0.2".to_owned(), "10.1.0.3".to_owned()]));
    web.received.clear();
    web.until(|client| endpoints(client).len() == 2).await;
    assert_eq!(web.received, ["cluster/shop/cart/80"], "the endpoints, and nothing else");
    running.stop().await;
}

#[tokio::test]
async fn after_a_restart_only_what_changed_meanwhile_is_sent() {
    let directory = shop();
    write(directory.path(), "cart-slice.yaml", &slice(["10.1.0.2".to_owned()]));
    let running = Running::start(directory.path()).await;
    let mut web = Proxy::connect(&running, "web-0").await;
    web.dial("10.96.0.2:80").await;
    web.until(is_served).await;
    running.stop().await;
    assert_eq!(web.stream.next().await.unwrap_err().code(), Code::Unavailable);

    write(directory.path(), "cart-slice.yaml", &slice(["10.1.0.3".to_owned()]));
    let running = Running::start(directory.path()).await;
    let mut web = Proxy::reconnect(&running, "web-0", web.client).await;
    web.until(|client| endpoints(client).contains("10.1.0.3:8080")).await;
    assert_eq!(web.received, ["cluster/shop/cart/80"]);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_later_gets_the_latest_state() {
    let directory = shop();
    write(directory.path(), "web-1.yaml", &pod("shop", "web-1", "web", "10.1.0.7"));
    let many = |last: usize| {
        slice((0..1_000).map(|n| format!("10.2.{}.{}", n / 250, n % 250)).chain([format!("10.3.0.{last}")]))
    };
    write(directory.path(), "cart-slice.yaml", &many(0));
    let running = Running::start(directory.path()).await;
    let (mut quick, mut slow) =
        (Proxy::connect(&running, "web-0").await, Proxy::connect(&running, "web-1").await);
    for proxy in [&mut quick, &mut slow] {
        proxy.dial("10.96.0.2:80").await;
        proxy.until(|client| endpoints(client).len() == 1_001).await;
    }
    const CHANGES: usize = 15;
    for change in 1..=CHANGES {
        write(directory.path(), "cart-slice.yaml", &many(change));
        let address = format!("10.3.0.{change}:8080");
        quick.until(|client| endpoints(client).contains(&address)).await;
    }
    slow.received.clear();
    let address = format!("10.3.0.{CHANGES}:8080");
    slow.until(|client| endpoints(client).contains(&address)).await;
    assert!(slow.received.len() < CHANGES, "{} responses", slow.received.len());
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_and_harms_nobody() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let mut stream = running.stream(Some(running.enroll("shop.web-0").await)).await.unwrap();
    stream.send([asks_for("shop/web-0", &["x".repeat(5 * 1024 * 1024).as_str()])]).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    Proxy::connect(&running, "web-0").await.take_one().await;
    running.stop().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_answered_at_once_and_again_when_it_does() {
    let directory = shop();
    let running = Running::start(directory.path()).await;
    let mut web = Proxy::connect(&running, "web-0").await;
    web.dial("10.96.0.77:80").await;
    let name = Name::Outbound { viewer: "shop".to_owned(), address: "10.96.0.77:80".parse().unwrap() };
    let key = (gauze_model::Kind::Listener, name.clone());
    web.until(|client| client.snapshot().absent.contains(&key)).await;
    write(directory.path(), "new.yaml", &service("new", "10.96.0.77", 8080));
    web.until(|client| client.snapshot().listeners.contains_key(&name)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let directory = shop();
    let running = Running::start_with(directory.path(), &["--certificate-life", "5s"]).await;
    let mut web = Proxy::connect(&running, "web-0").await;
    let ended = loop {
        match web.stream.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("has expired"), "{ended}");
    // With the next certificate it goes on.
    let mut web = Proxy::connect(&running, "web-0").await;
    web.take_one().await;
    running.stop().await;
}
