//! `vlanfast attach`: checks the trunk, fills the maps, attaches the programs or takes them over, keeps the maps in
//! sync, and detaches at the end unless it is told to keep everything attached.

mod messages;
mod prepare;

use std::{convert::Infallible, net::TcpListener};

use anyhow::Context;
use aya::Ebpf;
use vlanfast_common::{Parent, Policy, Shed, Shortcut};

use self::{
    messages::Messages,
    prepare::{Prepared, prepare},
};
use crate::{
    cli::{AttachArgs, Metrics, OnExit},
    cmd::status,
    error::Error,
    hooks,
    hooks::{Parents, check_requirements, choose, device::Trunk},
    maps::{
        counters::CounterMap,
        flows::PairMap,
        heartbeat::{Health, VALIDITY, heartbeat},
        load, tables,
        tables::{Heartbeat, TableMaps},
    },
    metrics::{
        http,
        registry::{Totals, Trust},
    },
    names::docker,
    netlink::Netlink,
    notify::Supervisor,
    output,
    output::Background,
    pins::Pins,
    reconcile::{Reconciler, are_pins_gone, is_gone},
    state::{listeners, plan::Capacity, snapshot::Ifindex},
    stop::Stop,
};

pub async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    // From here on a signal ends the process at any point.
    let mut stop = Stop::listen()?;
    check_requirements()?;
    let netlink = Netlink::connect()?;
    let prepared = tokio::select! {
        biased;
        () = stop.wait() => {
            output::note("note: ended by a signal before anything was attached");
            return Ok(());
        }
        prepared = prepare(&netlink, args) => prepared?,
    };
    let Prepared {
        pins,
        trunk,
        choice,
        adopted,
        _lock,
    } = prepared;
    let output = Background::start().context("failed to start a thread")?;
    let mut attached = None;
    let work = async {
        let ready = Ready::make(args, &pins, &trunk, choice, &output).await?;
        let attached = attached.insert(ready.attach(&netlink, &trunk, choice, &output).await?);
        attached.stay(&netlink, args.on_exit, &output).await
    };
    let failure = tokio::select! {
        biased;
        () = stop.wait() => Ok(()),
        Err(error) = work => Err(error),
    };
    let left = match attached {
        Some(attached) => {
            let left = attached.leave(&netlink, args.on_exit, failure, &output);
            left.await
        }
        // What was attached before stays as it was. The next `attach` or `detach` takes it over or removes it.
        None if adopted && (failure.is_err() || args.on_exit == OnExit::Keep) => failure,
        // If nothing was attached before, nothing is left. The first error is the one to report.
        None => failure.and(hooks::remove(&netlink, &pins).await),
    };
    output.finish();
    left
}

/// Everything is ready to attach: the maps are filled, the sources are followed, and the metrics server has its
/// address.
struct Ready {
    policy: Policy,
    /// Whether the shortcut begins at the VLANs' own devices. It does not in a dry run, nor with -v, which shows every
    /// packet.
    from_parents: bool,
    ebpf: Ebpf,
    maps: TableMaps,
    messages: Messages,
    reconciler: Reconciler,
    docker: docker::Task,
    listener: Option<TcpListener>,
}

impl Ready {
    async fn make(
        args: &AttachArgs,
        pins: &Pins,
        trunk: &Trunk,
        choice: choose::Choice,
        output: &Background,
    ) -> anyhow::Result<Self> {
        let listener = match args.metrics {
            Metrics::Off => None,
            Metrics::At(address) => Some(http::listen(address)?),
        };
        let policy = args.policy();
        let level = messages::level(args.verbose);
        let (mut ebpf, maps) = load::adopt(pins, capacity(args), &policy, level)?;
        hooks::attach::prepare(&mut ebpf, choice)?;
        let from_parents = args.shortcut == Shortcut::Allow
            && !args.dry_run
            && args.verbose == 0
            && Parents::prepare(&mut ebpf).unwrap_or_else(|error| {
                output.note(&format!(
                    "note: {error:#}; the shortcut begins at the trunk"
                ));
                false
            });
        let messages = Messages::open(&mut ebpf, args.verbose, output)?;
        let (docker, names) = docker::watch(args.docker.clone());
        let trunk = Ifindex(trunk.ifindex);
        let tables = TableMaps::of(&ebpf)?;
        let reconciler = Reconciler::fill(
            pins.clone(),
            trunk,
            args.vlan_config(),
            args.quotas(),
            tables,
            names,
        )
        .await?;
        if policy.shed != Shed::Off as u32 && reconciler.untagged().has(Parent::TAGGED) {
            return Err(Error::ListenedTo {
                trunk: pins.trunk.to_string(),
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
        output: &Background,
    ) -> anyhow::Result<Attachment> {
        self.reconciler.check_trunk()?;
        let pins = self.reconciler.pins();
        let (ebpf, maps) = (&mut self.ebpf, &mut self.maps);
        let done = hooks::attach::attach(netlink, trunk, choice, ebpf, maps, pins).await?;
        for note in &done.notes {
            output.note(&format!("note: {note}"));
        }
        self.maps
            .update_settings(|settings| settings.policy = self.policy)?;
        // The attached programs are pinned, and our own handles on them are closed here. Otherwise they would keep the
        // programs alive after a detach by another process.
        let parents = match self.from_parents {
            true => Some(Parents::new(self.ebpf)?),
            false => None,
        };
        let published = self
            .reconciler
            .publish(netlink, done.hooks, parents)
            .await?;
        self.maps.beat(VALIDITY)?;
        self.reconciler.await_probes().await?;
        let pins = self.reconciler.pins();
        let (counters, pairs) = (CounterMap::open(pins)?, PairMap::open(pins)?);
        let read = move || {
            Ok(Totals {
                vlans: counters.read_all()?,
                pairs: pairs.read_all()?,
            })
        };
        let maps = TableMaps::open(pins)?;
        let trust = move || {
            let settings = maps.settings()?;
            Ok(Trust {
                alive: Heartbeat::of(&settings, tables::now()?) == Heartbeat::Alive,
                incomplete: settings.incomplete,
            })
        };
        let start = |listener| http::Server::start(listener, published.clone(), read, trust);
        let server = self.listener.map(start).transpose()?;
        Ok(Attachment {
            maps: self.maps,
            messages: self.messages,
            reconciler: self.reconciler,
            supervisor: Supervisor::of_environment(),
            _docker: self.docker,
            _server: server,
        })
    }
}

fn capacity(args: &AttachArgs) -> Capacity {
    Capacity {
        endpoints: args.max_endpoints,
        neighbors: 4 * args.max_endpoints,
        // A hash map has room for one entry at least.
        routes: match args.shortcut {
            Shortcut::Off => 1,
            Shortcut::Allow | Shortcut::Learned => 4 * args.max_endpoints,
        },
    }
}

/// Programs that are attached, and maps that are kept in sync.
struct Attachment {
    maps: TableMaps,
    messages: Messages,
    reconciler: Reconciler,
    supervisor: Supervisor,
    _docker: docker::Task,
    _server: Option<http::Server>,
}

impl Attachment {
    /// Shows the status, and keeps the maps in sync until something fails.
    async fn stay(
        &mut self,
        netlink: &Netlink,
        on_exit: OnExit,
        output: &Background,
    ) -> anyhow::Result<Infallible> {
        let then = match on_exit {
            OnExit::Detach => "detaches vlanfast".into(),
            OnExit::Keep => format!(
                "leaves the programs attached; `vlanfast detach {}` removes them",
                self.reconciler.pins().trunk
            ),
        };
        self.supervisor.ready(Health::InSync.words());
        // An error here is ignored, because the maps have to be kept in sync whether the status can be shown or not.
        if let Ok(shown) = status::shown(netlink, self.reconciler.pins()).await {
            output.text(&shown);
        }
        output.text(&format!("Ctrl-C {then}.\n"));
        let freshness = self.reconciler.freshness();
        tokio::select! {
            ended = self.reconciler.run(netlink) => ended,
            ended = heartbeat(&mut self.maps, freshness, &self.supervisor) => ended,
            ended = self.messages.show() => ended,
        }
    }

    /// Detaches, or with --on-exit keep leaves the programs attached, which then pass every frame.
    async fn leave(
        mut self,
        netlink: &Netlink,
        on_exit: OnExit,
        failure: anyhow::Result<()>,
        output: &Background,
    ) -> anyhow::Result<()> {
        self.supervisor.stopping();
        let pins = self.reconciler.pins();
        if failure.as_ref().is_err_and(are_pins_gone) {
            let settings = self.maps.settings()?;
            return failure.and(hooks::remove_unpinned(netlink, &settings).await);
        }
        if on_exit == OnExit::Keep && !failure.as_ref().is_err_and(is_gone) {
            output.text(&format!(
                "{}: stays attached and passes every frame\n",
                pins.trunk
            ));
            return failure.and(self.maps.stop());
        }
        output.text(&format!("{}: detaching\n", pins.trunk));
        failure.and(hooks::remove(netlink, pins).await)
    }
}
