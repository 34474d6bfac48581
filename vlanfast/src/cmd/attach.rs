//! `vlanfast attach`: check, fill the maps, attach or take over, stay in sync, detach or not.

mod messages;

use std::net::TcpListener;

use anyhow::Context;
use aya::Ebpf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vlanfast_common::{Parent, Policy, Shed};

use self::messages::Messages;
use super::status;
use crate::{
    cli::{AttachArgs, Metrics, OnExit, Shortcuts},
    datapath::{
        check_kernel, choose,
        counters::CounterMap,
        device::Trunk,
        flows::PairMap,
        hooks::{self, Parents},
        load,
        netlink::Netlink,
        pins::{Holder, Lock, Pins},
        tables::{self, Heartbeat, Maps},
    },
    error::Error,
    metrics::{http, registry::Totals},
    output,
    reconcile::{Reconciler, VALIDITY, heartbeat, is_gone},
    source::docker,
    state::{listeners, plan::Capacity, snapshot::Ifindex},
};

pub async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    // From here on a signal ends us in order, at whatever point it comes.
    let mut stop = Stop::listen()?;
    check_kernel()?;
    let netlink = Netlink::connect()?;
    let Prepared {
        pins,
        trunk,
        choice,
        adopted,
        _lock,
    } = prepare(&netlink, args).await?;
    let attached = match Ready::make(args, &pins, &trunk, choice) {
        Ok(ready) => ready.attach(&netlink, &trunk, choice).await,
        Err(error) => Err(error),
    };
    match attached {
        Ok(attached) => attached.stay(&netlink, &mut stop, args.on_exit).await,
        // What is attached goes on as it was, and whoever comes next takes it over or off; where
        // nothing was, nothing is left.
        Err(error) if adopted => Err(error),
        Err(error) => {
            // The first failure is the one to mend.
            let _ = hooks::remove(&netlink, &pins).await;
            Err(error)
        }
    }
}

/// What is needed to attach.
struct Prepared {
    pins: Pins,
    trunk: Trunk,
    choice: choose::Choice,
    /// Something of ours is attached already.
    adopted: bool,
    _lock: Lock,
}

/// Everything that can be refused without having changed anything.
async fn prepare(netlink: &Netlink, args: &AttachArgs) -> anyhow::Result<Prepared> {
    let name = &args.trunk;
    let mut trunk = Trunk::find(netlink, name).await?;
    let mut pins = Pins::of(name);
    let mut lock = None;
    match hooks::find(netlink, name).await? {
        None => hooks::make_way(netlink, name).await?,
        Some(found) => {
            // Its process was killed, or told to keep it: it is ours now.
            let taken = found.lock()?.map_err(|holder| taken(&found, holder))?;
            if hooks::owner(netlink, &found).await?.as_ref() == Some(name) {
                (pins, lock) = (found, Some(taken));
            } else {
                // Nothing is attached by it: its device is gone, or it never came so far.
                hooks::remove(netlink, &found).await?;
                trunk = Trunk::find(netlink, name).await?;
            }
        }
    }
    let without = hooks::without_ours(&trunk, &pins)?;
    let choice = choose::choose(&without, args.ingress, args.manage_offloads)?;
    let adopted = lock.is_some();
    let lock = match lock {
        Some(lock) => lock,
        None => pins.create()?.map_err(|holder| taken(&pins, holder))?,
    };
    // Pins under a name that the trunk had before follow it in the first round.
    Ok(Prepared {
        pins,
        trunk,
        choice,
        adopted,
        _lock: lock,
    })
}

fn taken(pins: &Pins, holder: Holder) -> Error {
    Error::AlreadyAttached {
        trunk: pins.trunk.clone(),
        pid: holder
            .pid
            .map_or_else(|| "of another namespace".into(), |pid| pid.to_string()),
    }
}

/// The maps filled, the sources followed, the metrics' address taken: nothing that could be refused is
/// left but to attach.
struct Ready {
    policy: Policy,
    /// The shortcut begins at the VLANs' own devices: not in a dry run, nor where every packet is to be shown.
    from_parents: bool,
    ebpf: Ebpf,
    maps: Maps,
    messages: Messages,
    reconciler: Reconciler,
    docker: docker::Task,
    listener: Option<TcpListener>,
}

impl Ready {
    fn make(
        args: &AttachArgs,
        pins: &Pins,
        trunk: &Trunk,
        choice: choose::Choice,
    ) -> anyhow::Result<Self> {
        let listener = match args.metrics {
            Metrics::Off => None,
            Metrics::At(address) => Some(http::listen(address)?),
        };
        let capacity = Capacity {
            endpoints: args.max_endpoints,
            neighbors: 4 * args.max_endpoints,
            // A hash has room for one at least.
            routes: match args.shortcut {
                Shortcuts::Off => 1,
                Shortcuts::Allow | Shortcuts::Learned => 4 * args.max_endpoints,
            },
        };
        let policy = args.policy();
        if let Some(kind @ ("bond" | "team")) = trunk.kind.as_deref()
            && policy.shed == Shed::Mac as u32
        {
            return Err(Error::TakesForPorts {
                trunk: trunk.name.clone(),
                kind: kind.to_owned(),
            }
            .into());
        }
        let level = messages::level(args.verbose);
        let (mut ebpf, maps) = load::adopt(pins, capacity, &policy, level)?;
        hooks::prepare(&mut ebpf, choice)?;
        let from_parents = args.shortcut == Shortcuts::Allow
            && !args.dry_run
            && args.verbose == 0
            && Parents::prepare(&mut ebpf).unwrap_or_else(|error| {
                eprintln!("note: {error:#}; the shortcut begins at the trunk");
                false
            });
        let messages = Messages::open(&mut ebpf, args.verbose)?;
        let (docker, names) = docker::watch(args.docker.clone());
        let trunk = Ifindex(trunk.ifindex);
        let tables = Maps::of(&ebpf)?;
        let reconciler = Reconciler::fill(pins.clone(), trunk, args.wishes(), tables, names)?;
        if policy.shed != Shed::Off as u32 && reconciler.untagged().has(Parent::TAGGED) {
            return Err(Error::ListenedTo {
                trunk: pins.trunk.clone(),
                listeners: listeners::words(reconciler.untagged(), Parent::TAGGED),
            }
            .into());
        }
        Ok(Self {
            policy,
            from_parents,
            ebpf,
            maps,
            messages,
            reconciler,
            docker,
            listener,
        })
    }

    async fn attach(
        mut self,
        netlink: &Netlink,
        trunk: &Trunk,
        choice: choose::Choice,
    ) -> anyhow::Result<Attached> {
        let pins = self.reconciler.pins();
        let (ebpf, maps) = (&mut self.ebpf, &mut self.maps);
        for note in hooks::attach(netlink, trunk, choice, ebpf, maps, pins).await? {
            eprintln!("note: {note}");
        }
        self.maps.note(|settings| settings.policy = self.policy)?;
        // What is attached is pinned: our handles on the programs end here, or they would keep them
        // alive behind a detach's back.
        let parents = match self.from_parents {
            true => Some(Parents::new(self.ebpf)?),
            false => None,
        };
        let published = self.reconciler.publish(netlink, parents).await?;
        self.maps.beat(VALIDITY)?;
        let pins = self.reconciler.pins();
        let (counters, pairs) = (CounterMap::open(pins)?, PairMap::open(pins)?);
        let read = move || {
            Ok(Totals {
                vlans: counters.read_all()?,
                pairs: pairs.read_all()?,
            })
        };
        let kept = Maps::open(pins)?;
        let alive = move || {
            let (settings, now) = (kept.settings(), tables::now());
            matches!((settings, now), (Ok(settings), Ok(now))
                if Heartbeat::of(&settings, now) == Heartbeat::Alive)
        };
        let start = |listener| http::Server::start(listener, published.clone(), read, alive);
        let server = self.listener.map(start).transpose()?;
        Ok(Attached {
            maps: self.maps,
            messages: self.messages,
            reconciler: self.reconciler,
            _docker: self.docker,
            _server: server,
        })
    }
}

/// Attached, and in sync for as long as this runs.
struct Attached {
    maps: Maps,
    messages: Messages,
    reconciler: Reconciler,
    _docker: docker::Task,
    _server: Option<http::Server>,
}

impl Attached {
    /// Shows what was done, stays until a signal or a failure comes, then leaves as it was told to.
    async fn stay(
        mut self,
        netlink: &Netlink,
        stop: &mut Stop,
        on_exit: OnExit,
    ) -> anyhow::Result<()> {
        let then = match on_exit {
            OnExit::Detach => "detaches".into(),
            OnExit::Keep => format!(
                "leaves it attached; `vlanfast detach {}` takes it off",
                self.reconciler.pins().trunk
            ),
        };
        // Whether anybody reads it or not: what is attached has to be followed.
        let _ = status::print(netlink, self.reconciler.pins()).await;
        say(&format!("Ctrl-C {then}."));
        let truth = self.reconciler.truth();
        let ended = tokio::select! {
            () = stop.wait() => Ok(()),
            Err(error) = self.reconciler.run(netlink) => Err(error),
            Err(error) = heartbeat(&mut self.maps, truth) => Err(error),
            Err(error) = self.messages.show() => Err(error),
        };
        let pins = self.reconciler.pins();
        if on_exit == OnExit::Keep && !ended.as_ref().is_err_and(is_gone) {
            say(&format!(
                "{}: stays attached, and passes every frame",
                pins.trunk
            ));
            return ended.and(self.maps.stop());
        }
        say(&format!("{}: detaching", pins.trunk));
        ended.and(hooks::remove(netlink, pins).await)
    }
}

/// Prints a line. That nobody reads it any more (`vlanfast attach eth0 | head`) must not keep us from
/// detaching.
fn say(line: &str) {
    let _ = output::text(&format!("{line}\n"));
}

/// The signals that end an attachment.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
