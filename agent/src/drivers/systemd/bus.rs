//! The connection to systemd: made, listened to, and made again when D-Bus or systemd was restarted.
//!
//! One task ([`keep`]) owns the connection and drains its signals at once into [`Jobs`] and [`Watches`], which never block: a full queue
//! of signals would hold back the answers to calls behind it. For the same reason this task makes no calls itself while it listens.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, connection};
use zbus_systemd::systemd1::ManagerProxy;

use super::jobs::Jobs;
use super::names::UNIT_PATHS;
use super::watches::Watches;

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// How long systemd may take to answer a call. A reload of its configuration answers when it is through, which takes a tenth of a
/// second as a rule, and seconds on a machine with thousands of units.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// How long a connection may take to stand.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// First and longest pause between attempts; it doubles in between.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Signals that may wait to be read: room for a boot's worth of them in one go.
const SIGNALS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// One connection, as long as it lasts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) manager: ManagerProxy<'static>,
    pub(super) jobs: Jobs,
}

/// Runs for ever; the caller aborts it.
pub(super) async fn keep(sessions: watch::Sender<Option<Arc<Session>>>, watches: Arc<Watches>) {
    let mut pause = PAUSE.0;
    let mut told = false;
    loop {
        let timed_out = |_| Err(zbus::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut)));
        match tokio::time::timeout(CONNECT_TIME, connect()).await.unwrap_or_else(timed_out) {
            Ok((session, signals)) => {
                let session = Arc::new(session);
                sessions.send_replace(Some(Arc::clone(&session)));
                // Anything may have happened before.
                watches.all_changed();
                told = false;
                let begun = Instant::now();
                listen(&session, signals, &watches).await;
                // One that breaks at once is made again ever more slowly, too.
                if begun.elapsed() > PAUSE.1 {
                    pause = PAUSE.0;
                }
                sessions.send_replace(None);
                session.jobs.close();
                tracing::warn!("the connection to systemd is lost, making it again");
            }
            Err(error) if !told => {
                tracing::warn!(%error, "cannot connect to systemd, trying again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn connect() -> zbus::Result<(Session, SelectAll<MessageStream>)> {
    let connection = connection::Builder::system().method_timeout(ANSWER_TIME).build().await?;
    let signal = || MatchRule::builder().msg_type(Type::Signal);
    let manager_signal = |member| signal().sender(SYSTEMD).interface(MANAGER).path(MANAGER_PATH).member(member).build();
    let rules = [
        manager_signal("JobRemoved")?,
        manager_signal("Reloading")?,
        signal().sender(SYSTEMD).interface(PROPERTIES).path_namespace(UNIT_PATHS).arg(0, UNIT).build()?,
        signal().sender("org.freedesktop.DBus").member("NameOwnerChanged").arg(0, SYSTEMD).build()?,
    ];
    let mut streams = Vec::with_capacity(rules.len());
    for rule in rules {
        streams.push(MessageStream::for_match_rule(rule, &connection, Some(SIGNALS_MAX)).await?);
    }
    let manager = ManagerProxy::builder(&connection).cache_properties(zbus::proxy::CacheProperties::No).build().await?;
    // Also the proof that systemd is on the bus.
    subscribe(&manager).await?;
    Ok((Session { connection, manager, jobs: Jobs::default() }, select_all(streams)))
}

/// systemd sends signals of units and jobs only to those who asked for them.
async fn subscribe(manager: &ManagerProxy<'_>) -> zbus::Result<()> {
    match manager.subscribe().await {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" => Ok(()),
        other => other,
    }
}

/// Until the connection is lost.
async fn listen(session: &Arc<Session>, mut signals: SelectAll<MessageStream>, watches: &Arc<Watches>) {
    let mut closed = pin!(session.connection.closed());
    // At most one task, which asks systemd for its signals again.
    let mut asking = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = signals.next() => message,
            () = &mut closed => return,
            Some(asked) = asking.join_next() => match asked {
                Ok(true) | Err(_) => continue,
                // Better a new connection than one that hears nothing.
                Ok(false) => return,
            },
        };
        let Some(Ok(message)) = message else { return };
        if heard(session, &message, watches) {
            asking.abort_all();
            let (manager, watches) = (session.manager.clone(), Arc::clone(watches));
            asking.spawn(async move {
                let asked = subscribe(&manager).await;
                watches.all_changed();
                asked.inspect_err(|error| tracing::warn!(%error, "systemd does not take the subscription again")).is_ok()
            });
        }
    }
}

/// Takes in one signal. Whether systemd may have forgotten the subscription, and signals may have been missed.
fn heard(session: &Session, message: &Message, watches: &Watches) -> bool {
    let header = message.header();
    let body = message.body();
    match header.member().map(|member| member.as_str()) {
        Some("PropertiesChanged") => {
            if let Some(path) = header.path() {
                watches.changed(path.as_str());
            }
            false
        }
        Some("JobRemoved") => {
            if let Ok((_id, job, _unit, result)) = body.deserialize::<(u32, OwnedObjectPath, String, String)>() {
                session.jobs.ended(job.as_str(), &result);
            }
            false
        }
        // At the end of a reload (`false`), which may have changed any unit.
        Some("Reloading") => matches!(body.deserialize::<bool>(), Ok(false)),
        // systemd is back on the bus, after `systemctl daemon-reexec`.
        Some("NameOwnerChanged") => matches!(body.deserialize::<(String, String, String)>(), Ok((_, _, new)) if !new.is_empty()),
        _ => false,
    }
}
