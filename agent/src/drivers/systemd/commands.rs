//! Commands as transient units (`Type=oneshot`): systemd keeps their cgroup, their user and their time-out, and forgets them when they end.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use zbus::OwnedVariant;
use zbus::Variant;

use super::bus::Session;
use super::{Systemd, errors, names};
use crate::drivers::{Command, UnitError, Units as _, Verb};

/// systemd ends a command that takes too long; where it does not say so in this time, we do.
const MARGIN: Duration = Duration::from_secs(5);
/// How long the end of a command that was killed may take.
const END: Duration = Duration::from_secs(10);
/// Most commands of one App that are ended in one go.
const ENDED_MAX: usize = 8192;
const SIGKILL: i32 = 9;

impl Systemd {
    pub(super) async fn run_command(&self, command: &Command) -> Result<(), UnitError> {
        names::check(&command.unit)?;
        let unit = command.unit.as_str();
        let deadline = Instant::now() + command.timeout + MARGIN;
        let late = || UnitError::JobTimeout { unit: unit.to_owned(), verb: Verb::Run, timeout: command.timeout };
        let session = self.session(&format!("run {unit}")).await?;
        let job = match begin(&session, command).await {
            // One of an agent before us: it is ended, for nobody knows what became of it.
            Err(error) if errors::exists(&error) => {
                self.end_command(unit).await?;
                begin(&session, command).await
            }
            other => other,
        };
        let job = job.map_err(|error| errors::of_verb(unit, Verb::Run, error))?;
        let result = session.jobs.result_of(job.as_str());
        let ended = match timeout_at(deadline, self.result_or_seen(unit, result)).await {
            Ok(heard) => self.judge(unit, Verb::Run, heard).await,
            Err(_elapsed) => Err(late()),
        };
        if ended.is_err() {
            self.end_command(unit).await?;
        }
        ended
    }

    pub(super) async fn end_commands_of(&self, prefix: &str) -> Result<(), UnitError> {
        let action = format!("look for {prefix}*");
        let session = self.session(&action).await?;
        let all = session.manager.list_units_by_patterns(Vec::new(), vec![format!("{prefix}*.service")]).await;
        for (unit, ..) in all.map_err(|error| errors::lost(&action, error))?.into_iter().take(ENDED_MAX) {
            self.end_command(&unit).await?;
        }
        Ok(())
    }

    /// Kills all of it, waits until nothing is left, and has systemd forget it.
    async fn end_command(&self, unit: &str) -> Result<(), UnitError> {
        self.kill(unit).await?;
        self.stop(unit, END).await?;
        self.forget_failure(unit).await
    }
}

async fn begin(session: &Session, command: &Command) -> zbus::Result<zbus::OwnedObjectPath> {
    session.manager.start_transient_unit(command.unit.clone(), "fail".to_owned(), properties(command)?, Vec::new()).await
}

fn properties(command: &Command) -> zbus::Result<Vec<(String, OwnedVariant)>> {
    let micros = u64::try_from(command.timeout.as_micros()).unwrap_or(u64::MAX - 1);
    let program = command.arguments.first().cloned().unwrap_or_default();
    // No expansion of `$`: every argument reaches the program as it is.
    let start = vec![(program, command.arguments.clone(), vec!["no-env-expand".to_owned()])];
    let environment: Vec<String> = command.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut properties = vec![
        ("Description", Variant::new(command.description.clone())),
        ("Type", Variant::new("oneshot".to_owned())),
        ("ExecStartEx", Variant::new(start)),
        ("Environment", Variant::new(environment)),
        ("TimeoutStartUSec", Variant::new(micros)),
        // Who takes too long is not asked twice.
        ("KillSignal", Variant::new(SIGKILL)),
    ];
    properties.extend(command.user.iter().map(|user| ("User", Variant::new(user.clone()))));
    properties.extend(command.group.iter().map(|group| ("Group", Variant::new(group.clone()))));
    properties.into_iter().map(|(name, value)| Ok((name.to_owned(), value.try_into_owned()?))).collect()
}
