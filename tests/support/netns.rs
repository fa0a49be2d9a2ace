//! Two machines on two networks with a router between, as network namespaces of this machine.
//!
//! ```text
//! left 10.77.1.2 ─── 10.77.1.1 router 10.77.2.1 ─── 10.77.2.2 right
//!  fd77:1::2                                            fd77:2::2
//! ```
//!
//! The router drops what it is told to without a word, as a network does. Namespaces see nothing
//! of the machine's own network; they are named after this process and removed when the test ends,
//! and those of a process that is gone are removed by the next one.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::skip::skipped;

/// Begins the name of every namespace made here.
const PREFIX: &str = "packhorse-test-";

/// One of the two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Left,
    Right,
}

/// Two machines and the router; removed on drop.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
}

impl Machine {
    fn word(self) -> &'static str {
        match self {
            Machine::Left => "left",
            Machine::Right => "right",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Machine::Left => 1,
            Machine::Right => 2,
        }
    }

    /// The address it has at first.
    pub(crate) fn address(self) -> String {
        self.other_address(2)
    }

    /// Another address of its network.
    pub(crate) fn other_address(self, last: u8) -> String {
        format!("10.77.{}.{last}", self.number())
    }

    /// The IPv6 address it has.
    pub(crate) fn address_v6(self) -> String {
        format!("fd77:{}::2", self.number())
    }
}

impl Network {
    /// `None` where none can be made; the test then says that it was skipped, and why.
    pub(crate) fn new(test: &str) -> Option<Network> {
        remove_orphans();
        let network = Network { name: fresh_name() };
        match network.build() {
            Ok(()) => Some(network),
            Err(reason) => {
                skipped(test, &reason);
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let router = self.namespace("router");
        for place in ["left", "right", "router"] {
            let namespace = self.namespace(place);
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            // An address of IPv6 is otherwise on trial for its first seconds.
            let no_trial = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad";
            ip(&["netns", "exec", &namespace, "sh", "-c", no_trial])?;
        }
        // Strangers' packets are forwarded only where that is said.
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward \
            && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        ip(&["netns", "exec", &router, "sh", "-c", forward])?;
        for machine in [Machine::Left, Machine::Right] {
            let (namespace, word) = (self.namespace(machine.word()), machine.word());
            let number = machine.number();
            ip(&[
                "link", "add", "eth0", "netns", &namespace, "type", "veth", "peer", "name", word,
                "netns", &router,
            ])?;
            for (namespace, device, last) in [(&namespace, "eth0", 2), (&router, word, 1)] {
                let v4 = format!("10.77.{number}.{last}/24");
                let v6 = format!("fd77:{number}::{last}/64");
                ip(&["-n", namespace, "address", "add", &v4, "dev", device])?;
                ip(&["-n", namespace, "address", "add", &v6, "dev", device])?;
                ip(&["-n", namespace, "link", "set", device, "up"])?;
            }
            self.default_routes(machine)?;
        }
        Ok(())
    }

    fn default_routes(&self, machine: Machine) -> Result<(), String> {
        let namespace = self.namespace(machine.word());
        let number = machine.number();
        let (v4, v6) = (format!("10.77.{number}.1"), format!("fd77:{number}::1"));
        ip(&["-n", &namespace, "route", "replace", "default", "via", &v4])?;
        ip(&[
            "-n", &namespace, "-6", "route", "replace", "default", "via", &v6,
        ])
    }

    /// What `ip netns exec` calls a machine.
    pub(crate) fn of(&self, machine: Machine) -> String {
        self.namespace(machine.word())
    }

    /// From now on nothing that is sent to this machine arrives; nobody is told.
    #[track_caller]
    pub(crate) fn drop_all_to(&self, machine: Machine) {
        let router = self.namespace("router");
        let (v4, v6) = (machine.address() + "/32", machine.address_v6() + "/128");
        ip(&["-n", &router, "route", "add", "blackhole", &v4]).expect("a route");
        ip(&["-n", &router, "-6", "route", "add", "blackhole", &v6]).expect("a route");
    }

    /// From now on it arrives again.
    #[track_caller]
    pub(crate) fn heal(&self, machine: Machine) {
        let router = self.namespace("router");
        let (v4, v6) = (machine.address() + "/32", machine.address_v6() + "/128");
        ip(&["-n", &router, "route", "del", "blackhole", &v4]).expect("a route");
        ip(&["-n", &router, "-6", "route", "del", "blackhole", &v6]).expect("a route");
    }

    /// Gives a machine another address in place of the one it has.
    #[track_caller]
    pub(crate) fn move_to(&self, machine: Machine, from: &str, to: &str) {
        let namespace = self.namespace(machine.word());
        let (from, to) = (format!("{from}/24"), format!("{to}/24"));
        ip(&["-n", &namespace, "address", "del", &from, "dev", "eth0"]).expect("it had it");
        ip(&["-n", &namespace, "address", "add", &to, "dev", "eth0"]).expect("a free one");
        self.default_routes(machine).expect("routes");
    }

    /// Gives a machine a second address, and has it prefer that one.
    #[track_caller]
    pub(crate) fn prefer(&self, machine: Machine, address: &str) {
        let namespace = self.namespace(machine.word());
        let with_length = format!("{address}/24");
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &with_length,
            "dev",
            "eth0",
        ])
        .expect("a free one");
        let router = format!("10.77.{}.1", machine.number());
        let route = [
            "route", "replace", "default", "via", &router, "src", address,
        ];
        ip(&[&["-n", &namespace][..], &route].concat()).expect("a route");
    }

    /// Slows the way between the machines down and loses some of what goes over it; `Err` where
    /// the kernel cannot.
    pub(crate) fn impair(&self, delay: &str, loss: &str) -> Result<(), String> {
        let router = self.namespace("router");
        for device in ["left", "right"] {
            let mut tc = Command::new("tc");
            tc.args(["-n", &router, "qdisc", "replace", "dev", device, "root"]);
            tc.args(["netem", "delay", delay, "loss", loss]);
            run(tc)?;
        }
        Ok(())
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in ["left", "right", "router"] {
            let _ = ip(&["netns", "del", &self.namespace(place)]);
        }
    }
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// Removes what a killed test left behind.
fn remove_orphans() {
    let Ok(names) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !fs::exists(format!("/proc/{owner}")).unwrap_or(true)) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let mut ip = Command::new("ip");
    ip.args(words);
    run(ip)
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", stderr.trim()))
}
