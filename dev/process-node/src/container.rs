//! One container: it is started, probed, stopped, and started again.

use std::fs;
use std::io;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use tokio::time::{Instant, sleep};

use crate::action::{Action, Target};
use crate::backoff::Backoff;
use crate::environment::{self, References, Variables};
use crate::image;
use crate::probe::Prober;
use crate::process::{Launch, Process};
use crate::record::{self, Exit, Fault, RestartPolicy};
use crate::sandbox::{Sandbox, Slot};
use crate::stop::Stop;

/// How soon a container is tried again that could not be started: nothing is pulled here, so an attempt
/// costs next to nothing, and whoever mends the cause wants to see it work.
const RETRY: Duration = Duration::from_secs(2);

/// What a hook that used up all the time leaves to the process itself, as a kubelet does.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// A process that runs, and what it was started with.
struct Running {
    process: Process,
    launch: Launch,
    spec: Container,
    started: Instant,
}

/// A probe's verdict that the container has to go.
struct Unhealthy {
    note: String,
    grace: Option<i64>,
}

/// Runs a container until it ends for good, by `policy`. Its exit code, or `None` if it was ordered to
/// stop.
pub async fn run(sandbox: &Sandbox, slot: Slot, policy: RestartPolicy, mut stop: Stop) -> Option<i32> {
    let record = sandbox.record();
    if let Some(end) = slot.record(&record).and_then(record::ended)
        && !policy.restarts(end.exit_code)
    {
        return Some(end.exit_code);
    }
    let mut backoff = Backoff::default();
    let mut last_fault = None;
    while !stop.is_ordered() {
        let started = tokio::select! {
            started = start(sandbox, slot) => started,
            () = stop.ordered() => break,
        };
        let mut running = match started {
            Ok(running) => running,
            Err(fault) => {
                if last_fault.as_ref() != Some(&fault) {
                    let pod = sandbox.pod();
                    sandbox.context.tell(&pod, EventType::Warning, "Failed", fault.message.clone());
                    sandbox.update(slot, |status| {
                        record::wait(status, fault.reason, Some(fault.message.clone()));
                    });
                    last_fault = Some(fault);
                }
                stop.pause(RETRY).await;
                continue;
            }
        };
        last_fault = None;
        let exit = attend(sandbox, slot, &mut running, &mut stop).await;
        sandbox.update(slot, |status| record::end(status, exit, &sandbox.context.now()));
        let name = &running.spec.name;
        tracing::info!(pod = sandbox.pod().name_any(), container = name, ?exit, "the container ended");
        if stop.is_ordered() {
            break;
        }
        if !policy.restarts(exit.code) {
            return Some(exit.code);
        }
        let pause = backoff.after(running.started.elapsed());
        let note = format!("back-off {} s before container {name} starts again", pause.as_secs());
        sandbox.context.tell(&sandbox.pod(), EventType::Warning, "BackOff", note.clone());
        sandbox.update(slot, |status| record::wait(status, "CrashLoopBackOff", Some(note)));
        stop.pause(pause).await;
    }
    None
}

/// Decides what to start, and starts it.
async fn start(sandbox: &Sandbox, slot: Slot) -> Result<Running, Fault> {
    let (context, pod) = (&sandbox.context, sandbox.pod());
    let spec = slot.spec(&pod).ok_or_else(|| Fault::config("the pod has no such container"))?;
    image::check(spec.image.as_deref().unwrap_or_default(), &context.config.image)?;
    if matches!(slot, Slot::Init(_)) && spec.restart_policy.is_some() {
        return Err(Fault::config("the process node has no sidecars: init containers must end"));
    }
    let references = References::fetch(context, spec).await?;
    let own = environment::resolve(spec, &pod, sandbox.ip(), &references)?;
    let launch = prepare(sandbox, spec, own).await?;

    let failed = |error: io::Error| {
        Fault::new("CreateContainerError", format!("failed to start {}: {error}", launch.program.display()))
    };
    let log = context.config.log_file(&pod.name_any(), &spec.name);
    let entry = format!("pod-{}-{}", pod.name_any(), spec.name);
    let process = Process::spawn(&launch, &log, &context.config.run_folder(), entry).map_err(failed)?;
    sandbox.update(slot, |status| {
        status.image = spec.image.clone().unwrap_or_default();
        record::start(status, process.pid(), &context.now());
    });
    let note = format!("started container {} as process {}", spec.name, process.pid());
    context.tell(&pod, EventType::Normal, "Started", note);
    Ok(Running { process, launch, spec: spec.clone(), started: Instant::now() })
}

/// Binary, arguments, folder, and around the container's `own` variables those that every process needs.
async fn prepare(sandbox: &Sandbox, spec: &Container, own: Variables) -> Result<Launch, Fault> {
    let config = &sandbox.context.config;
    let expand = |words: &Option<Vec<String>>| {
        let words = words.iter().flatten();
        words.map(|word| environment::expand(word, &own)).collect::<Vec<_>>()
    };
    let mut command = expand(&spec.command).into_iter();
    let Some(program) = command.next() else {
        let message = "the container needs a command: the process node has no image to take one from";
        return Err(Fault::new("CreateContainerError", message));
    };
    let missing = || format!("there is no binary for {program} in {}", config.bin_dir.display());
    let binary = image::find(&program, &config.bin_dir)
        .ok_or_else(|| Fault::new("CreateContainerError", missing()))?;
    let arguments = command.chain(expand(&spec.args)).collect();

    let folder = sandbox.folder.join(&spec.name);
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary)
        .map_err(|error| Fault::config(format!("failed to create {}: {error}", temporary.display())))?;
    let kubeconfig = sandbox.kubeconfig().await?;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut environment = Variables::from([
        ("PATH".to_owned(), format!("{}:{}", config.bin_dir.display(), config.path)),
        ("HOME".to_owned(), text(&folder)),
        ("TMPDIR".to_owned(), text(&temporary)),
    ]);
    environment.extend(kubeconfig.map(|path| ("KUBECONFIG".to_owned(), text(&path))));
    environment.extend(own);
    Ok(Launch { program: binary, arguments, environment, folder })
}

/// Waits until the process ends: by itself, because a probe gives it up, or because it is ordered to.
async fn attend(sandbox: &Sandbox, slot: Slot, running: &mut Running, stop: &mut Stop) -> Exit {
    let Running { process, launch, spec, started } = running;
    let target = Target {
        ip: sandbox.ip(),
        ports: spec.ports.as_deref().unwrap_or_default(),
        launch,
        bin_dir: &sandbox.context.config.bin_dir,
        http: &sandbox.context.http,
    };
    let mut ordered = stop.clone();
    let pod = sandbox.pod();
    let grace = tokio::select! {
        exit = process.wait() => return exit,
        () = ordered.ordered() => None,
        unhealthy = watch_health(sandbox, slot, spec, &target, *started) => {
            sandbox.context.tell(&pod, EventType::Warning, "Unhealthy", unhealthy.note);
            Some(grace_period(&pod, unhealthy.grace))
        }
    };
    // New connections go elsewhere from now on.
    sandbox.update(slot, |status| status.ready = false);
    sandbox.context.tell(&pod, EventType::Normal, "Killing", format!("stopping container {}", spec.name));

    let begun = Instant::now();
    if let Some(hook) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        tokio::select! {
            exit = process.wait() => return exit,
            () = overdue(stop.clone(), begun, grace) => return process.stop(sleep(AFTER_HOOK)).await,
            result = target.perform(Action::of_hook(hook)) => if let Err(error) = result {
                sandbox.context.tell(&pod, EventType::Warning, "FailedPreStopHook", error);
            }
        }
    }
    process.stop(overdue(stop.clone(), begun, grace)).await
}

/// Waits until a container has used up its time: `grace` since `begun` if there is one, and whatever an
/// order to the whole pod leaves.
async fn overdue(mut stop: Stop, begun: Instant, grace: Option<Duration>) {
    match grace {
        None => stop.overdue().await,
        Some(grace) => tokio::select! {
            () = stop.overdue() => {}
            () = tokio::time::sleep_until(begun + grace) => {}
        },
    }
}

/// The time that `pod` gives its containers to stop, unless a probe has its own.
#[must_use]
pub fn grace_period(pod: &Pod, of_probe: Option<i64>) -> Duration {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = of_probe.or(of_pod).and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Keeps `started` and `ready` true to what the probes find; returns once one gives the container up.
async fn watch_health(
    sandbox: &Sandbox,
    slot: Slot,
    spec: &Container,
    target: &Target<'_>,
    started: Instant,
) -> Unhealthy {
    if let Some(probe) = &spec.startup_probe
        && let Err(why) = Prober::new(probe, target.clone(), started).verdict().await
    {
        let note = format!("startup probe of {} failed: {why}", spec.name);
        return Unhealthy { note, grace: probe.termination_grace_period_seconds };
    }
    sandbox.update(slot, |status| {
        status.started = Some(true);
        status.ready = spec.readiness_probe.is_none();
    });
    let readiness = async {
        if let Some(probe) = &spec.readiness_probe {
            let mut prober = Prober::new(probe, target.clone(), started);
            let mut ready = false;
            loop {
                let verdict = prober.verdict().await;
                if verdict.is_ok() == ready {
                    continue;
                }
                ready = verdict.is_ok();
                sandbox.update(slot, |status| status.ready = ready);
                if let Err(why) = verdict {
                    let note = format!("readiness probe of {} failed: {why}", spec.name);
                    sandbox.context.tell(&sandbox.pod(), EventType::Warning, "Unhealthy", note);
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let liveness = async {
        if let Some(probe) = &spec.liveness_probe {
            let mut prober = Prober::new(probe, target.clone(), started);
            loop {
                if let Err(why) = prober.verdict().await {
                    let note = format!("liveness probe of {} failed: {why}", spec.name);
                    return Unhealthy { note, grace: probe.termination_grace_period_seconds };
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = readiness => std::future::pending().await,
        unhealthy = liveness => unhealthy,
    }
}
