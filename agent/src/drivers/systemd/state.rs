//! What systemd says of a unit, read from its properties in two calls.

use std::collections::HashMap;
use std::path::PathBuf;

use zbus::{Connection, Message, ObjectPath, Variant};

use super::bus::{PROPERTIES, SYSTEMD, UNIT};
use crate::drivers::{ActiveState, LoadState, STARTED_BY_MAX, UnitState};

const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// The state of the unit at `path`, and the name that systemd calls it by. systemd loads the unit for this if need be.
/// [`UnitState::populated`] is left to the caller.
pub(super) async fn read(connection: &Connection, unit: &str, path: &ObjectPath<'_>) -> zbus::Result<(UnitState, String)> {
    let (of_unit, of_service) = futures_util::future::try_join(get_all(connection, path, UNIT), get_all(connection, path, SERVICE)).await?;
    let (of_unit, of_service) = (of_unit.body(), of_service.body());
    let unit_properties = Properties(of_unit.deserialize()?);
    let service_properties = Properties(of_service.deserialize()?);
    let state = UnitState {
        unit: unit.to_owned(),
        load_state: load_state(unit_properties.text("LoadState")),
        load_error: unit_properties.load_error(),
        active_state: active_state(unit_properties.text("ActiveState")),
        sub_state: unit_properties.text("SubState").to_owned(),
        result: service_properties.text("Result").to_owned(),
        exit_status: service_properties.get("ExecMainStatus").unwrap_or_default(),
        main_pid: service_properties.get("MainPID").unwrap_or_default(),
        restarts: service_properties.get("NRestarts").unwrap_or_default(),
        invocation_id: unit_properties.hexadecimal("InvocationID"),
        active_enter_us: unit_properties.get("ActiveEnterTimestampMonotonic").unwrap_or_default(),
        need_daemon_reload: unit_properties.get("NeedDaemonReload").unwrap_or_default(),
        fragment_path: Some(unit_properties.text("FragmentPath")).filter(|path| !path.is_empty()).map(PathBuf::from),
        unit_file_state: unit_properties.text("UnitFileState").to_owned(),
        started_by: unit_properties.started_by(),
        control_group: service_properties.text("ControlGroup").to_owned(),
        can_reload: unit_properties.get("CanReload").unwrap_or_default(),
        job_pending: unit_properties.job() != 0,
        populated: false,
    };
    Ok((state, unit_properties.text("Id").to_owned()))
}

/// What the unit at `path` does, and nothing else of it.
pub(super) async fn active(connection: &Connection, path: &ObjectPath<'_>) -> zbus::Result<ActiveState> {
    let reply = connection.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &(UNIT, "ActiveState")).await?;
    let body = reply.body();
    match body.deserialize()? {
        Variant::Str(word) => Ok(active_state(word.as_str())),
        _ => Err(zbus::Error::IncorrectType),
    }
}

async fn get_all(connection: &Connection, path: &ObjectPath<'_>, interface: &str) -> zbus::Result<Message> {
    connection.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "GetAll", &(interface,)).await
}

/// The properties of one interface. One that is missing reads as empty: systemd's older versions lack some.
struct Properties<'a>(HashMap<&'a str, Variant<'a>>);

impl<'a> Properties<'a> {
    fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Variant::Str(text)) => text.as_str(),
            _ => "",
        }
    }

    fn get<'b, T: TryFrom<&'b Variant<'a>>>(&'b self, name: &str) -> Option<T> {
        self.0.get(name).and_then(|value| T::try_from(value).ok())
    }

    fn hexadecimal(&self, name: &str) -> String {
        let Some(Variant::Array(bytes)) = self.0.get(name) else { return String::new() };
        bytes.inner().iter().filter_map(|byte| u8::try_from(byte).ok()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Number of the job of the unit; 0 when there is none.
    fn job(&self) -> u32 {
        self.first_field("Job").and_then(|id| u32::try_from(id).ok()).unwrap_or_default()
    }

    /// LoadError is the error's name and its text, both empty when there is none.
    fn load_error(&self) -> String {
        match self.0.get("LoadError") {
            Some(Variant::Structure(error)) => match error.fields() {
                [_, Variant::Str(text)] => text.as_str().to_owned(),
                _ => String::new(),
            },
            _ => String::new(),
        }
    }

    /// The units that pull this one in.
    fn started_by(&self) -> Vec<String> {
        let mut names = Vec::new();
        for property in ["TriggeredBy", "WantedBy", "RequiredBy", "UpheldBy"] {
            let Some(Variant::Array(units)) = self.0.get(property) else { continue };
            names.extend(
                units.inner().iter().filter_map(|unit| if let Variant::Str(unit) = unit { Some(unit.as_str().to_owned()) } else { None }),
            );
        }
        names.sort();
        names.dedup();
        names.truncate(STARTED_BY_MAX);
        names
    }

    fn first_field(&self, name: &str) -> Option<&Variant<'a>> {
        match self.0.get(name) {
            Some(Variant::Structure(fields)) => fields.fields().first(),
            _ => None,
        }
    }
}

fn load_state(word: &str) -> LoadState {
    match word {
        // A merged unit is an alias of a loaded one; a stub is about to be loaded.
        "loaded" | "merged" | "stub" => LoadState::Loaded,
        "not-found" | "" => LoadState::NotFound,
        "masked" => LoadState::Masked,
        "bad-setting" => LoadState::BadSetting,
        _ => LoadState::Error,
    }
}

/// A word of a later systemd counts as "on its way up": neither serving nor gone.
fn active_state(word: &str) -> ActiveState {
    match word {
        "active" => ActiveState::Active,
        "reloading" | "refreshing" => ActiveState::Reloading,
        "inactive" => ActiveState::Inactive,
        "failed" => ActiveState::Failed,
        "deactivating" => ActiveState::Deactivating,
        "maintenance" => ActiveState::Maintenance,
        _ => ActiveState::Activating,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_unknown_ones_count_as_neither_gone_nor_running() {
        for state in [
            ActiveState::Active,
            ActiveState::Reloading,
            ActiveState::Inactive,
            ActiveState::Failed,
            ActiveState::Activating,
            ActiveState::Deactivating,
            ActiveState::Maintenance,
        ] {
            assert_eq!(active_state(state.as_str()), state);
        }
        let unknown = UnitState { active_state: active_state("something-new"), ..UnitState::default() };
        assert!(!unknown.is_gone() && !unknown.is_running());
        assert_eq!(load_state("masked"), LoadState::Masked);
        assert_eq!(load_state("error"), LoadState::Error);
    }
}
