//! One run: the network and all machines in it, from the beginning until everything stands still.
//!
//! It carries out what the plan says goes wrong, heals it, and waits for the end.
//! It looks at no message: clients note, checks judge.
//!
//! Read [`World::run`].

use std::{collections::BTreeMap, net::IpAddr, rc::Rc, time::Duration};

use packhorse_actors::store::MemoryDisk;
use turmoil::Sim;

use crate::{
    checks::Final,
    host::{Command, Machine, Phase, address_of},
    ledger::{Place, SharedLedger, What},
    plan::{FaultKind, Node, Plan},
};

/// A step of the simulation. Packets come at its bounds; timers are finer.
const TICK_MS: u64 = 5;
/// How long a service manager waits before it starts a process again that ended by itself.
const RESTART_AFTER_MS: u64 = 1_000;
/// A cut of the power that comes so late is no longer that of the fault.
const CUT_WITHIN_MS: u64 = 5_000;
/// More than fills a machine for good.
const FREE_UNLESS_FULL: u64 = 1 << 50;
/// Below what new work is taken from, above what ends old work.
const FREE_WHEN_FULL: u64 = 5 << 20;
/// Datagrams that wait at a socket; what comes beyond is lost, as in a kernel.
const DATAGRAMS_MAX: usize = 512;
/// How long all machines must have stood still.
const STILL_MS: u64 = 2_000;
/// How long any disk takes for a commit, in milliseconds: up to its sync, and from there to its
/// answer.
const LATENCY_MS: (u64, u64) = (4, 2);

/// Something to be done at its time.
#[derive(Debug)]
enum Step {
    Begin(usize),
    End(usize),
    /// The process of a machine is started.
    Boot(usize),
    /// The power of a machine goes, if it has not yet.
    Cut(usize),
    /// A second machine begins.
    Clone(usize),
    /// A machine gets its former disk back.
    PutBack(usize),
}

/// One run.
pub(crate) struct World<'a> {
    plan: Rc<Plan>,
    ledger: SharedLedger,
    sim: Sim<'a>,
    /// Those of the plan, by number, and then the copies.
    machines: Vec<Rc<Machine>>,
    is_up: Vec<bool>,
    now_ms: u64,
    /// By time and order.
    agenda: BTreeMap<(u64, u64), Step>,
    steps: u64,
    /// How many faults keep packets from one to another.
    cuts: BTreeMap<(IpAddr, IpAddr), u32>,
    /// Disks as they were copied, by the fault.
    images: BTreeMap<usize, (u64, MemoryDisk)>,
    /// Machines that are to lose their power, with how long they are down.
    doomed: BTreeMap<usize, u64>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct End {
    /// What was left on each machine, and what still moved.
    pub(crate) remains: Final,
    pub(crate) virtual_ms: u64,
}

impl World<'_> {
    pub(crate) fn new(plan: Plan, ledger: SharedLedger) -> Self {
        let plan = Rc::new(plan);
        let network = &plan.topology.network;
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(Duration::from_millis(TICK_MS))
            .min_message_latency(Duration::from_millis(network.latency_ms.0))
            .max_message_latency(Duration::from_millis(network.latency_ms.1))
            .fail_rate(rate(network.loss_permille))
            // A packet is lost, not a link.
            .repair_rate(1.0)
            .simulation_duration(Duration::MAX)
            .udp_capacity(DATAGRAMS_MAX)
            .build();
        let count = plan.topology.nodes.len();
        let mut world = Self {
            machines: (0..count)
                .map(|node| Machine::new(&plan, &ledger, node))
                .collect(),
            is_up: vec![true; count],
            plan,
            ledger,
            sim,
            now_ms: 0,
            agenda: BTreeMap::new(),
            steps: 0,
            cuts: BTreeMap::new(),
            images: BTreeMap::new(),
            doomed: BTreeMap::new(),
        };
        for machine in &world.machines {
            let (before_ms, after_ms) = LATENCY_MS;
            machine.disk.borrow().set_latency(before_ms, after_ms);
            add(&mut world.sim, machine);
        }
        for (index, fault) in world.plan.clone().faults.iter().enumerate() {
            world.plan_step(fault.at_ms, Step::Begin(index));
        }
        world
    }

    /// Runs the plan, heals everything, and waits until all machines stand still.
    pub(crate) fn run(mut self) -> End {
        while self.now_ms < self.plan.work_ms {
            self.tick();
        }
        self.heal();
        let latest = self.now_ms + self.plan.converges_ms;
        let mut still_since = None;
        while self.now_ms < latest {
            self.tick();
            match self.is_still() {
                false => still_since = None,
                true if still_since.is_some_and(|since| self.now_ms >= since + STILL_MS) => {
                    return self.end(true);
                }
                true => still_since = still_since.or(Some(self.now_ms)),
            }
        }
        self.end(false)
    }

    fn end(self, is_still: bool) -> End {
        let at_odds = self.at_odds();
        let own = self.machines.iter().filter(|machine| !machine.is_copy);
        let mut remains = Final {
            at_ms: self.now_ms,
            ..Final::default()
        };
        let mut unrest = Vec::new();
        for machine in own {
            let moves = machine.unrest.borrow();
            if !moves.is_empty() {
                unrest.push(format!("node {}: {moves}", machine.node));
            } else if machine.remains.borrow().is_none() {
                unrest.push(format!("node {} does not run", machine.node));
            }
            remains
                .nodes
                .push(machine.remains.take().unwrap_or_default());
        }
        unrest.extend(at_odds);
        remains.unrest = (!is_still).then(|| unrest.join("; "));
        End {
            remains,
            virtual_ms: self.now_ms,
        }
    }

    fn tick(&mut self) {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= self.now_ms
        {
            let step = entry.remove();
            self.take(step);
        }
        self.sim.step().expect("machines end by themselves");
        self.now_ms += TICK_MS;
        for number in 0..self.machines.len() {
            self.look_after(number);
        }
    }

    /// What the service manager and the power grid of a machine do.
    fn look_after(&mut self, number: usize) {
        if !self.is_up[number] {
            return;
        }
        let machine = self.machines[number].clone();
        if let Some(down_ms) = self.doomed.get(&number).copied()
            && !machine.disk.borrow().is_powered()
        {
            self.doomed.remove(&number);
            return self.crash(number, "the power is gone", down_ms);
        }
        if machine.ended.borrow_mut().take().is_some() {
            self.is_up[number] = false;
            self.sim.crash(machine.address);
            let is_asked = *machine.phase.borrow() == Phase::Stop;
            if !machine.is_copy && !is_asked {
                self.plan_step(self.now_ms + RESTART_AFTER_MS, Step::Boot(number));
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Begin(index) => self.begin(index),
            Step::End(index) => self.over(index),
            Step::Boot(number) => self.boot(number),
            Step::Cut(number) => {
                if let Some(down_ms) = self.doomed.remove(&number) {
                    self.crash(number, "the power is gone", down_ms);
                }
            }
            Step::Clone(index) => self.begin_copy(index),
            Step::PutBack(index) => self.put_back(index),
        }
    }

    fn begin(&mut self, index: usize) {
        self.note_fault(index, false);
        let plan = self.plan.clone();
        let now_ms = self.now_ms;
        let later = |ms: &u64| now_ms + ms;
        match &plan.faults[index].kind {
            FaultKind::Partition { for_ms, .. }
            | FaultKind::OneWay { for_ms, .. }
            | FaultKind::Loss { for_ms, .. }
            | FaultKind::Delay { for_ms, .. }
            | FaultKind::StorageFull { for_ms, .. }
            | FaultKind::DiskFull { for_ms, .. }
            | FaultKind::SlowDisk { for_ms, .. }
            | FaultKind::Forget { for_ms, .. } => self.plan_step(later(for_ms), Step::End(index)),
            FaultKind::Clone {
                begins_after_ms,
                for_ms,
                ..
            } => {
                self.plan_step(later(begins_after_ms), Step::Clone(index));
                self.plan_step(later(&(begins_after_ms + for_ms)), Step::End(index));
            }
            FaultKind::SetBack { back_after_ms, .. } => {
                self.plan_step(later(back_after_ms), Step::PutBack(index));
            }
            _ => {}
        }
        match &plan.faults[index].kind {
            FaultKind::Partition { side, .. } => self.cut_side(side, 1),
            FaultKind::OneWay { from, to, .. } => self.cut(*from, *to, 1),
            FaultKind::Loss { a, b, permille, .. } => self.lose(*a, *b, *permille),
            FaultKind::Delay {
                a, b, latency_ms, ..
            } => self.delay(*a, *b, latency_ms.1),
            FaultKind::Crash { node, down_ms } => self.crash(*node, "killed", *down_ms),
            FaultKind::Stop { node, down_ms } => self.stop(*node, *down_ms),
            FaultKind::PowerCut {
                node,
                after_steps,
                down_ms,
            } => {
                if self.is_up[*node] {
                    self.machines[*node].disk.borrow().cut_after(*after_steps);
                    self.doomed.insert(*node, *down_ms);
                    self.plan_step(self.now_ms + CUT_WITHIN_MS, Step::Cut(*node));
                }
            }
            FaultKind::Death {
                node,
                actor,
                moment,
                manner,
            } => self.machines[*node].tell(Command::Die(*actor, *moment, *manner)),
            FaultKind::ClockJump { node, by_ms } => self.machines[*node].clock.jump(*by_ms),
            FaultKind::StorageFull { node, .. } => {
                self.machines[*node].disk.borrow().set_free(FREE_WHEN_FULL);
            }
            FaultKind::DiskFull { node, .. } => self.machines[*node].disk.borrow().set_full(true),
            FaultKind::SlowDisk { node, sync_ms, .. } => {
                let disk = self.machines[*node].disk.borrow();
                disk.set_latency(*sync_ms, LATENCY_MS.1);
            }
            FaultKind::Clone { node, .. } | FaultKind::SetBack { node, .. } => {
                let machine = &self.machines[*node];
                let image = machine.disk.borrow().image(machine.draw());
                self.images.insert(index, (self.now_ms, image));
            }
            FaultKind::Forget { node, peer, .. } => {
                self.machines[*node].tell(Command::Forget(*peer))
            }
        }
    }

    fn over(&mut self, index: usize) {
        self.note_fault(index, true);
        let network = self.plan.topology.network.clone();
        let plan = self.plan.clone();
        match &plan.faults[index].kind {
            FaultKind::Partition { side, .. } => self.cut_side(side, -1),
            FaultKind::OneWay { from, to, .. } => self.cut(*from, *to, -1),
            FaultKind::Loss { a, b, .. } => self.lose(*a, *b, network.loss_permille),
            FaultKind::Delay { a, b, .. } => self.delay(*a, *b, network.latency_ms.1),
            FaultKind::StorageFull { node, .. } => {
                self.machines[*node]
                    .disk
                    .borrow()
                    .set_free(FREE_UNLESS_FULL);
            }
            FaultKind::DiskFull { node, .. } => self.machines[*node].disk.borrow().set_full(false),
            FaultKind::SlowDisk { node, .. } => {
                let disk = self.machines[*node].disk.borrow();
                disk.set_latency(LATENCY_MS.0, LATENCY_MS.1);
            }
            FaultKind::Clone { node, .. } => self.end_copies_of(*node),
            FaultKind::Forget { node, peer, .. } => {
                self.machines[*node].tell(Command::Readmit(*peer));
            }
            _ => {}
        }
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        for step in std::mem::take(&mut self.agenda).into_values() {
            match step {
                Step::End(index) => self.over(index),
                Step::PutBack(index) => self.put_back(index),
                Step::Begin(_) | Step::Boot(_) | Step::Cut(_) | Step::Clone(_) => {}
            }
        }
        // What is planned by that is due at once.
        self.agenda.clear();
        self.doomed.clear();
        self.sim.set_fail_rate(0.0);
        for (a, b) in self.machines.iter().flat_map(|a| {
            let others = self.machines.iter().filter(|b| a.address < b.address);
            others.map(move |b| (a.address, b.address))
        }) {
            self.sim.set_link_fail_rate(a, b, 0.0);
        }
        for number in 0..self.machines.len() {
            let machine = self.machines[number].clone();
            if machine.is_copy {
                continue;
            }
            machine.tell(Command::Spare);
            // A disk that was put back is as full and as slow as it was when it was copied.
            let disk = machine.disk.borrow().clone();
            disk.set_free(FREE_UNLESS_FULL);
            disk.set_full(false);
            disk.set_latency(LATENCY_MS.0, LATENCY_MS.1);
            if self.is_up[number] {
                // A cut that was ordered and did not come.
                machine.disk.borrow().cut_after(u64::MAX);
            }
            machine.phase.send_replace(Phase::Settle);
            self.boot(number);
        }
    }

    fn is_still(&self) -> bool {
        let mut own = self.machines.iter().filter(|machine| !machine.is_copy);
        own.all(|machine| machine.remains.borrow().is_some()) && self.at_odds().is_none()
    }

    /// Two of which only one has a session with the other, a handshake that is under way, or a lease
    /// that runs. A session may outlive its other end until that is missed, and a lease its consumer.
    fn at_odds(&self) -> Option<String> {
        let remains = |node: Node| self.machines[node].remains.borrow();
        for pair in &self.plan.topology.pairs {
            let (a, b) = (remains(pair.a), remains(pair.b));
            let (Some(a), Some(b)) = (&*a, &*b) else {
                continue;
            };
            if a.connected.contains(&pair.b) != b.connected.contains(&pair.a) {
                let nodes = format!("{} and {}", pair.a, pair.b);
                return Some(format!(
                    "of nodes {nodes} one has a session, and the other has none"
                ));
            }
        }
        let begins = |node: &Node| {
            let remains = remains(*node);
            let depths = remains.as_ref().map(|remains| &remains.depths);
            depths.is_some_and(|depths| depths.half_open + depths.cheap + depths.costly > 0)
        };
        let mut nodes = 0..self.plan.topology.nodes.len();
        if let Some(node) = nodes.clone().find(begins) {
            return Some(format!("a handshake with node {node} does not end"));
        }
        let is_lent = |node: &Node| {
            let remains = remains(*node);
            remains
                .as_ref()
                .is_some_and(|remains| !remains.leased.is_empty())
        };
        let node = nodes.find(is_lent)?;
        Some(format!("somebody has messages of node {node} for ever"))
    }

    // Processes.

    fn crash(&mut self, number: usize, how: &str, down_ms: u64) {
        if !self.is_up[number] {
            return;
        }
        let machine = self.machines[number].clone();
        let how = how.to_owned();
        self.note(machine.place(), What::Ended { how });
        machine.disk.borrow().cut();
        machine.put_out();
        self.is_up[number] = false;
        self.sim.crash(machine.address);
        machine.ended.borrow_mut().take();
        self.plan_step(self.now_ms + down_ms, Step::Boot(number));
    }

    fn stop(&mut self, number: usize, down_ms: u64) {
        if self.is_up[number] {
            self.machines[number].phase.send_replace(Phase::Stop);
            self.plan_step(self.now_ms + down_ms, Step::Boot(number));
        }
    }

    fn boot(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        if self.is_up[number] {
            // Stopping takes its time; a service manager waits for it.
            if *machine.phase.borrow() == Phase::Stop {
                self.plan_step(self.now_ms + RESTART_AFTER_MS, Step::Boot(number));
            }
            return;
        }
        let is_over = self.now_ms >= self.plan.work_ms;
        let phase = if is_over { Phase::Settle } else { Phase::Work };
        machine.phase.send_replace(phase);
        self.is_up[number] = true;
        self.sim.bounce(machine.address);
    }

    fn begin_copy(&mut self, index: usize) {
        let FaultKind::Clone { node, .. } = self.plan.faults[index].kind else {
            return;
        };
        let Some((copied_ms, image)) = self.images.remove(&index) else {
            return;
        };
        let address = address_of(100 + self.machines.len());
        let copy = self.machines[node].copy(image, address);
        self.note(copy.place(), What::CopyBegun { copied_ms });
        add(&mut self.sim, &copy);
        self.machines.push(copy);
        self.is_up.push(true);
    }

    fn end_copies_of(&mut self, node: Node) {
        for number in 0..self.machines.len() {
            let machine = self.machines[number].clone();
            if !machine.is_copy || machine.node != node {
                continue;
            }
            if self.is_up[number] {
                machine.put_out();
                self.is_up[number] = false;
                self.sim.crash(machine.address);
            }
            self.note(machine.place(), What::CopyOver);
        }
    }

    fn put_back(&mut self, index: usize) {
        let FaultKind::SetBack { node, down_ms, .. } = self.plan.faults[index].kind else {
            return;
        };
        let Some((copied_ms, image)) = self.images.remove(&index) else {
            return;
        };
        self.crash(node, "its disk is exchanged", down_ms);
        let machine = self.machines[node].clone();
        machine.disk.replace(image);
        self.note(machine.place(), What::SetBack { copied_ms });
    }

    // The network.

    fn cut_side(&mut self, side: &[Node], by: i32) {
        let others = (0..self.plan.topology.nodes.len()).filter(|node| !side.contains(node));
        for other in others.collect::<Vec<_>>() {
            for node in side {
                self.cut(*node, other, by);
                self.cut(other, *node, by);
            }
        }
    }

    /// One more fault, or one fewer, keeps packets from one to another.
    fn cut(&mut self, from: Node, to: Node, by: i32) {
        let (from, to) = (address_of(from), address_of(to));
        let cuts = self.cuts.entry((from, to)).or_default();
        let before = *cuts;
        *cuts = cuts.saturating_add_signed(by);
        match (before, *cuts) {
            (0, 1..) => self.sim.partition_oneway(from, to),
            (1.., 0) => self.sim.repair_oneway(from, to),
            _ => {}
        }
    }

    fn lose(&mut self, a: Node, b: Node, permille: u64) {
        let (a, b) = (address_of(a), address_of(b));
        self.sim.set_link_fail_rate(a, b, rate(permille));
    }

    fn delay(&mut self, a: Node, b: Node, most_ms: u64) {
        let (a, b) = (address_of(a), address_of(b));
        let most = Duration::from_millis(most_ms);
        self.sim.set_link_max_message_latency(a, b, most);
    }

    // The rest.

    fn plan_step(&mut self, at_ms: u64, step: Step) {
        self.steps += 1;
        self.agenda.insert((at_ms, self.steps), step);
    }

    fn note_fault(&self, index: usize, is_over: bool) {
        let place = Place {
            node: 0,
            life: 0,
            is_copy: false,
        };
        self.note(place, What::Fault { index, is_over });
    }

    fn note(&self, place: Place, what: What) {
        self.ledger.note(self.now_ms, place, what);
    }
}

fn add(sim: &mut Sim<'_>, machine: &Rc<Machine>) {
    let host = machine.clone();
    sim.host(machine.address, move || {
        let process = host.clone().run();
        async move {
            process.await;
            Ok(())
        }
    });
}

fn rate(permille: u64) -> f64 {
    permille as f64 / 1_000.0
}
