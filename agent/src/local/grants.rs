//! What other Apps let this one do: read from the Apps' own manifests, when it is asked for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_bus::{Bucket, Bus, Kv};
use cluster_schemas::App;
use cluster_schemas::grants::{Grant, Right};
use tokio::sync::OnceCell;

use super::caller::{Caller, Who};
use super::{Local, LocalError};

/// A manifest that was read is gone by for so long; a grant that is taken back ends then.
const KEPT: Duration = Duration::from_secs(2);
/// Most Apps that are remembered.
const APPS_MAX: usize = 256;

/// The manifests that were read last.
#[derive(Debug, Default)]
pub struct Grants {
    apps: OnceCell<Kv<App>>,
    known: Mutex<BTreeMap<String, (Instant, Vec<Grant>)>>,
}

impl Grants {
    async fn of(&self, bus: &Bus, app: &str) -> Result<Vec<Grant>, LocalError> {
        let fresh = |known: &BTreeMap<String, (Instant, Vec<Grant>)>| {
            known.get(app).filter(|(at, _)| at.elapsed() < KEPT).map(|(_, grants)| grants.clone())
        };
        if let Some(grants) = fresh(&self.known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(grants);
        }
        let away = |why: String| LocalError::unavailable(format!("what App {app:?} grants cannot be read now: {why}"));
        let apps = self.apps.get_or_try_init(|| bus.try_open(Bucket::Apps)).await.map_err(|error| away(error.to_string()))?;
        let found = apps.get(app).await.map_err(|error| away(error.to_string()))?;
        let grants = found.map(|found| found.value.spec.grants).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < KEPT);
        if known.len() < APPS_MAX {
            known.insert(app.to_owned(), (Instant::now(), grants.clone()));
        }
        Ok(grants)
    }
}

/// Whether the caller may do this with the things of the App that it means.
///
/// # Errors
/// 403 where it may not; 503 where that cannot be told.
pub async fn authorize(local: &Local, caller: &Caller, right: Right) -> Result<(), LocalError> {
    let Who::App(own) = &caller.who else { return Ok(()) };
    if *own == caller.target {
        return Ok(());
    }
    let grants = local.grants.of(&local.bus, &caller.target).await?;
    if grants.iter().any(|grant| grant.app == *own && grant.rights.contains(&right)) {
        return Ok(());
    }
    let (target, right) = (&caller.target, right.as_str());
    Err(LocalError::forbidden(format!("App {target:?} does not grant {right} to App {own:?}; its manifest would say so in spec.grants")))
}
