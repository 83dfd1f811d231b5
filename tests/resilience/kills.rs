use gauze_tests::server::Came;

use crate::harness::client::Protocol;
use crate::harness::load::{Callee, Load, MIXED, Outcome, Report, Told};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions};
use crate::harness::mortal::{End, Mortal};
use crate::resilience::{pod, pod_at};

/// How often an app is killed each way.
const TIMES: usize = 50;
/// How often a whole pod is: a sidecar takes longer to start.
const PODS: usize = 10;
/// Requests a second, of all manners together.
const RATE: u32 = 100;
/// Requests that are sent while an app is away, and again before the next one is.
const MEANWHILE: usize = 6;

/// `web` calls `cart`: two pods whose apps can be killed.
struct Shop {
    apps: [Mortal; 2],
    web: Sidecar,
    carts: [Sidecar; 2],
    mesh: Mesh,
}

/// Every second request meets the app that is away: nothing is learnt from failures, so that each kill counts, and
/// the budget allows that many retries. What is retried is the default: what did not reach the app.
const POLICY: &str = "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                      targetRefs: [{group: '', kind: Service, name: cart}, {group: '', kind: Service, name: lines}]\n  balance: {type: RoundRobin}\n  \
                      outlierDetection: {consecutiveGatewayFailure: 0}\n  retryBudget: {percent: 100}\n";

impl Shop {
    async fn start() -> Shop {
        let mesh = Mesh::start().await;
        let apps = [Mortal::start().await, Mortal::start().await];
        let carts =
            [pod(&mesh, "cart-0", apps[0].address).await, pod(&mesh, "cart-1", apps[1].address).await];
        let dials = [mesh.service_address(), mesh.service_address()];
        mesh.service("cart", dials[0], "http", &[&carts[0], &carts[1]]);
        mesh.service("lines", dials[1], "tcp", &[&carts[0], &carts[1]]);
        mesh.apply("policy.yaml", POLICY);
        let options = SidecarOptions { dials: &dials, ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        for sidecar in carts.iter().chain([&web]) {
            sidecar.ready().await;
        }
        Shop { apps, web, carts, mesh }
    }

    /// `cart`, as the app of `web` dials it.
    fn callee(&self) -> Callee {
        let [requests, lines] = self.web.outbound[..] else { unreachable!("two are dialled") };
        Callee { requests, lines, host: "cart".to_owned() }
    }

    /// Kills a pod as a node does that loses its power: sidecar and app at once.
    async fn kill_pod(&mut self, at: usize) {
        self.carts[at].process.kill();
        self.apps[at].end(End::Killed).await;
    }

    async fn revive_pod(&mut self, at: usize) {
        self.apps[at].revive(End::Killed).await;
        let address = self.carts[at].address;
        self.carts[at] = pod_at(&self.mesh, address, &format!("cart-{at}"), self.apps[at].address).await;
        self.carts[at].ready().await;
    }

    /// What reached any of the apps.
    fn came(&self) -> Came {
        let mut came = Came::new();
        for (id, (arrived, executed)) in self.apps.iter().flat_map(Mortal::came) {
            let times = came.entry(id).or_default();
            *times = (times.0 + arrived, times.1 + executed);
        }
        came
    }
}

#[tokio::test]
async fn an_app_killed_fifty_times_each_way_loses_nothing_that_did_not_reach_it_and_nothing_runs_twice() {
    let mut shop = Shop::start().await;
    let mut wrong = Vec::new();
    for how in [End::Killed, End::Terminated, End::Deaf] {
        let load = Load::start_as(&MIXED, &format!("{how:?}"), &shop.callee(), RATE);
        for round in 0..TIMES {
            let app = &mut shop.apps[round % 2];
            app.end(how).await;
            load.send_more(MEANWHILE).await;
            app.revive(how).await;
            load.send_more(MEANWHILE).await;
        }
        wrong.extend(judge(&format!("{how:?} {TIMES} times"), &load.finish().await, &shop.came()));
    }
    assert!(wrong.is_empty(), "{} were lost, doubled or misreported: {wrong:#?}", wrong.len());
}

#[tokio::test]
async fn a_pod_killed_with_its_sidecar_loses_nothing_that_did_not_reach_it_and_nothing_runs_twice() {
    let mut shop = Shop::start().await;
    let load = Load::start_as(&MIXED, "pod", &shop.callee(), RATE);
    for round in 0..PODS {
        shop.kill_pod(round % 2).await;
        load.send_more(MEANWHILE).await;
        shop.revive_pod(round % 2).await;
        load.send_more(MEANWHILE).await;
    }
    let wrong = judge(&format!("a pod {PODS} times"), &load.finish().await, &shop.came());
    assert!(wrong.is_empty(), "{} were lost, doubled or misreported: {wrong:#?}", wrong.len());
}

/// Prints what became of all requests, and returns what must not be.
fn judge(how: &str, report: &Report, came: &Came) -> Vec<String> {
    let (mut answered, mut reported, mut unread, mut wrong) = (0, 0, 0, Vec::new());
    for outcome in &report.outcomes {
        let times = came.get(&outcome.id).copied().unwrap_or_default();
        let told = outcome.told();
        let is_reset = told == Told::Refused("M3010".to_owned()) || is_line_broken_off(outcome, &told);
        match (told, times) {
            (Told::Answer, (1, 1)) => answered += 1,
            (Told::Refused(_), (1, _)) if is_reset => reported += 1,
            (Told::BrokenOff, (1, _)) => reported += 1,
            // It lay in the socket of an app that died before it read it: nobody else can know that.
            (_, (0, 0)) if is_reset => unread += 1,
            (_, times) => wrong.push(format!("{}: {times:?}, {}", outcome.id, outcome.text())),
        }
    }
    println!(
        "{how}: {} sent, {answered} answered; {reported} had reached an app and were reported so, {unread} its \
         socket, unread; {} wrong",
        report.outcomes.len(),
        wrong.len()
    );
    wrong
}

/// All that can be said of a line is that its connection ended.
fn is_line_broken_off(outcome: &Outcome, told: &Told) -> bool {
    outcome.protocol == Protocol::Opaque && *told == Told::BrokenOff
}
