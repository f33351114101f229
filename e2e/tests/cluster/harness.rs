//! One lab for all scenarios: started with the first that is run, taken down after the last, replaced after a failure.
//!
//! A scenario plays with real clocks on a machine that others use too. One that fails is played a second time in a new lab, and the run
//! says so at its end, with what went wrong the first time; [`SECOND_TRIES`] of a run at most. What touches the promise itself (something
//! held twice, an old epoch after a newer one) fails at once: see [`is_breach`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cluster_e2e::{LabError, Result};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::cluster::Cluster;

/// A named scenario.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Cluster) -> Result<()>,
}

/// The list of scenarios by module: `scenarios![module: [function, ...], ...]`.
macro_rules! scenarios {
    ($($module:ident: [$($name:ident),* $(,)?]),* $(,)?) => {
        [$($($crate::harness::Scenario { name: stringify!($name), run: $crate::$module::$name }),*),*]
    };
}
pub(crate) use scenarios;

/// Held while scenarios are played: all runs have the same lab, so another one waits.
const LOCK: &str = "clusterctl-scenarios.lock";

/// Set to keep the lab of the first failed scenario for a look; the rest is not run then.
const KEEP: &str = "CLUSTERCTL_LAB_KEEP";

/// Set to play each scenario once only.
const ONCE: &str = "CLUSTERCTL_SCENARIOS_ONCE";

/// Scenarios of a run that may be played a second time. More than these are no accident of the machine.
const SECOND_TRIES: usize = 3;

#[derive(Default)]
struct Stage {
    lock: Option<File>,
    cluster: Option<Cluster>,
    kept: bool,
    /// What passed at the second time only, and what went wrong the first.
    second: Vec<(String, String)>,
}

/// Whether the exclusive promise was broken, by the words of the witness: that is no matter of how busy the machine is.
fn is_breach(why: &str) -> bool {
    [" was held by ", " lines in epoch ", "two owners at a time"].iter().any(|words| why.contains(words))
}

/// Runs the scenarios that the command line asks for.
pub fn play(scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the lab.
    arguments.test_threads = Some(1);
    let stage = Arc::new(Mutex::new(Stage::default()));
    let trials = scenarios.iter().map(|scenario| {
        let (stage, name, run) = (Arc::clone(&stage), scenario.name, scenario.run);
        Trial::test(name, move || stage.lock().unwrap_or_else(PoisonError::into_inner).perform(name, run))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    stage.lock().unwrap_or_else(PoisonError::into_inner).strike();
    conclusion.exit_code()
}

impl Stage {
    fn perform(&mut self, name: &str, run: fn(&Cluster) -> Result<()>) -> Result<(), Failed> {
        let why = match self.try_once(name, run) {
            Err(why) if std::env::var_os(ONCE).is_none() && !self.kept && self.second.len() < SECOND_TRIES && !is_breach(&why) => why,
            outcome => return outcome.map_err(Failed::from),
        };
        eprintln!("--- {name}: a second time, in a new lab");
        self.second.push((name.to_owned(), why));
        self.try_once(name, run).map_err(|why| format!("failed twice, the second time: {why}").into())
    }

    fn try_once(&mut self, name: &str, run: fn(&Cluster) -> Result<()>) -> Result<(), String> {
        if self.kept {
            return Err(format!("not run, since a lab with a failure in it is kept ({KEEP})"));
        }
        if self.lock.is_none() {
            self.lock = Some(lock().map_err(|error| format!("{LOCK}: {error}"))?);
        }
        let cluster = match &mut self.cluster {
            Some(cluster) => cluster,
            none => none.insert(Cluster::start().map_err(|error| error.chain())?),
        };
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            cluster.begin();
            run(cluster)?;
            let played = began.elapsed();
            cluster.finish()?;
            Ok::<_, LabError>(played)
        }));
        let why = match outcome {
            Ok(Ok(played)) => {
                eprintln!("  {:.1} s, cleaned up after {:.1} s", played.as_secs_f64(), began.elapsed().as_secs_f64());
                return Ok(());
            }
            Ok(Err(error)) => error.chain(),
            Err(panic) => panic_text(&*panic),
        };
        eprintln!("--- {name} failed after {:.1} s: {why}\n{}", began.elapsed().as_secs_f64(), cluster.diagnose());
        if std::env::var_os(KEEP).is_some() {
            self.kept = true;
        } else if let Some(cluster) = self.cluster.take() {
            // What a failed scenario left says nothing about the next one.
            cluster.down();
        }
        Err(why)
    }

    fn strike(&mut self) {
        for (name, why) in &self.second {
            eprintln!("  SECOND TRY: {name} failed the first time: {}", why.lines().next().unwrap_or_default());
        }
        if let Some(cluster) = self.cluster.take() {
            if self.kept {
                eprintln!("the lab is kept; 'lab --name {} down' removes it", cluster.lab.name());
            } else {
                cluster.down();
            }
        }
    }
}

fn lock() -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(std::env::temp_dir().join(LOCK))?;
    if file.try_lock().is_err() {
        eprintln!("  waiting for another run of the scenarios to end");
        file.lock()?;
    }
    Ok(file)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
