//! Apps that come and go under mixed load, by ledger: HTTP/1.1, HTTP/2, gRPC and opaque, over connections that are kept
//! and over fresh ones. Nothing is lost, nothing runs twice, and what fails is told. No app of these has a preStop hook of its own.

mod control_plane; // the control plane that comes and goes

use gauze_tests::client::Protocol;
use gauze_tests::load::Told;
use gauze_tests::record::Record;

use crate::harness::cluster::Cluster;
use crate::harness::ledgers::{
    Account, Ledgers, Manners, crosses_the_end, died_with_the_app, found_nobody, now,
};

/// How often a Deployment is rolled.
const RESTARTS: usize = 20;
/// How often one of its pods is deleted.
const DELETIONS: usize = 6;
/// Requests before, after, and between.
const SOME: usize = 50;

#[tokio::test]
async fn a_deployment_rolled_twenty_times_loses_nothing_and_what_an_abrupt_app_had_received_is_told() {
    let Some(cluster) = Cluster::with_test_pods().await else { return };
    let finishes = async {
        let shop = Ledgers::open(cluster, "rolled", 2, Manners::Finishes).await;
        rolled(&shop).await;
        shop
    };
    let exits = async {
        let shop = Ledgers::open(cluster, "rolled-abrupt", 2, Manners::Exits).await;
        rolled(&shop).await;
        shop
    };
    let (finishes, exits) = tokio::join!(finishes, exits);
    let finishes = Account::of(&finishes.records().await, &finishes.came().await, crosses_the_end);
    let exits = Account::of(&exits.records().await, &exits.came().await, died_with_the_app);
    println!("an app that exits at once, rolled {RESTARTS} times: {exits}");
    finishes.assert_nothing_lost(&format!("an app that finishes what it holds, rolled {RESTARTS} times"));
    exits.assert_nothing_lost(&format!("an app that exits at once, rolled {RESTARTS} times"));
    cluster.leave("rolled").await;
    cluster.leave("rolled-abrupt").await;
}

async fn rolled(shop: &Ledgers<'_>) {
    shop.call("caller").await;
    for _ in 0..RESTARTS {
        shop.kubectl(&["rollout", "restart", "deployment/cart"]).await;
        shop.rolled_out().await;
    }
    shop.answers_more(SOME).await;
    shop.hang_up("caller").await;
}

#[tokio::test]
async fn pods_that_are_deleted_under_load_lose_nothing() {
    let Some(cluster) = Cluster::with_test_pods().await else { return };
    let shop = Ledgers::open(cluster, "deleted", 2, Manners::Finishes).await;
    shop.call("caller").await;
    for _ in 0..DELETIONS {
        let names = shop.kubectl(&["get", "pods", "--selector=app=cart", "--output=name"]).await;
        let name = names.lines().next().expect("the Deployment has pods");
        shop.kubectl(&["delete", name, "--timeout=180s"]).await;
        shop.rolled_out().await;
    }
    shop.answers_more(SOME).await;
    shop.hang_up("caller").await;
    let account = Account::of(&shop.records().await, &shop.came().await, crosses_the_end);
    account.assert_nothing_lost(&format!("{DELETIONS} pods deleted"));
    cluster.leave("deleted").await;
}

#[tokio::test]
async fn a_service_that_is_emptied_tells_every_caller_so_at_once_and_loses_nothing_before_and_after() {
    let Some(cluster) = Cluster::with_test_pods().await else { return };
    let shop = Ledgers::open(cluster, "emptied", 2, Manners::Finishes).await;
    shop.call("caller").await;
    let emptied = now();
    shop.kubectl(&["scale", "deployment/cart", "--replicas=0"]).await;
    shop.kubectl(&["wait", "--for=delete", "pods", "--selector=app=cart", "--timeout=180s"]).await;
    shop.answers_more(SOME).await;
    let filling = now();
    shop.kubectl(&["scale", "deployment/cart", "--replicas=2"]).await;
    shop.rolled_out().await;
    shop.answers_more(2 * SOME).await;
    shop.hang_up("caller").await;

    let (records, came) = (shop.records().await, shop.came().await);
    // Requests and lines have a port each, and so endpoints of their own.
    for is_line in [false, true] {
        let its = |record: &&Record| (record.protocol == Protocol::Opaque) == is_line;
        let answered = records.iter().filter(its).filter(|record| record.told == Told::Answer);
        let filled = answered.map(|record| record.sent).filter(|sent| *sent > filling).min();
        let filled = filled.expect("it is answered again");
        let is_meanwhile = |record: &&Record| (emptied..filled).contains(&record.sent);
        let kind = if is_line { "lines" } else { "requests" };
        let meanwhile = Account::of(records.iter().filter(its).filter(is_meanwhile), &came, found_nobody);
        meanwhile.assert_nothing_lost(&format!("{kind} while their Service is empty"));
        assert!(!meanwhile.told.is_empty(), "it was never empty");
        let rest = records.iter().filter(its).filter(|record| !is_meanwhile(record));
        Account::of(rest, &came, crosses_the_end).assert_nothing_lost(&format!("{kind} before and after"));
    }
    cluster.leave("emptied").await;
}
