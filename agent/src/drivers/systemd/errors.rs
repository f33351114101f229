//! D-Bus errors in the agent's words.

use zbus::fdo;

use crate::drivers::{UnitError, Verb};

/// systemd refused `verb`, or could not be asked.
pub(super) fn of_verb(unit: &str, verb: Verb, error: zbus::Error) -> UnitError {
    let unit = unit.to_owned();
    let Some((name, message)) = refusal(&error) else { return lost(&format!("{verb} of unit {unit}"), error) };
    match name.strip_prefix("org.freedesktop.systemd1.").unwrap_or_default() {
        "NoSuchUnit" => UnitError::NotFound { unit },
        "UnitMasked" => UnitError::Masked { unit },
        "BadUnitSetting" | "LoadFailed" => UnitError::BadSetting { unit, message },
        // Nothing about the unit itself, but about what else systemd is doing.
        "TransactionIsDestructive" | "ShuttingDown" | "" => UnitError::Refused { unit, verb, message, retryable: true },
        _ => UnitError::Refused { unit, verb, message, retryable: false },
    }
}

/// Whether systemd says that it holds no such unit.
pub(super) fn is_no_such_unit(error: &zbus::Error) -> bool {
    refusal(error).is_some_and(|(name, _)| name == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Whether systemd says that there is a unit of this name already.
pub(super) fn exists(error: &zbus::Error) -> bool {
    refusal(error).is_some_and(|(name, _)| name == "org.freedesktop.systemd1.UnitExists")
}

/// systemd could not be asked, or gave an answer that makes no sense.
pub(super) fn lost(action: &str, error: zbus::Error) -> UnitError {
    UnitError::Bus { action: action.to_owned(), source: Box::new(error) }
}

/// Name and text of an answer that says no; none if the error is one of the connection, or of a systemd that is away.
fn refusal(error: &zbus::Error) -> Option<(String, String)> {
    match error {
        zbus::Error::MethodError(name, message, _) => Some((name.to_string(), message.clone().unwrap_or_else(|| name.to_string()))),
        zbus::Error::FDO(error) => match error.as_ref() {
            fdo::Error::AccessDenied(message)
            | fdo::Error::InvalidArgs(message)
            | fdo::Error::NotSupported(message)
            | fdo::Error::InteractiveAuthorizationRequired(message) => Some((String::new(), message.clone())),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str) -> zbus::Error {
        let call = zbus::Message::method_call("/", "Call").build(&()).unwrap();
        let reply = zbus::Message::error(&call.header(), name).build(&("why",)).unwrap();
        zbus::Error::from(reply)
    }

    #[test]
    fn permanent_errors_are_told_from_those_worth_another_try() {
        let of = |name: &str| of_verb("a.service", Verb::Start, answer(name));
        assert!(matches!(of("org.freedesktop.systemd1.NoSuchUnit"), UnitError::NotFound { .. }));
        assert!(matches!(of("org.freedesktop.systemd1.UnitMasked"), UnitError::Masked { .. }));
        let bad = of("org.freedesktop.systemd1.BadUnitSetting");
        assert!(matches!(&bad, UnitError::BadSetting { message, .. } if message == "why"), "{bad:?}");
        for (name, permanent) in [
            ("org.freedesktop.systemd1.OnlyByDependency", true),
            ("org.freedesktop.systemd1.JobTypeNotApplicable", true),
            ("org.freedesktop.systemd1.TransactionIsDestructive", false),
            ("org.freedesktop.DBus.Error.AccessDenied", false),
            ("com.example.Unknown", false),
        ] {
            let error = of(name);
            assert!(matches!(error, UnitError::Refused { .. }), "{name}: {error:?}");
            assert_eq!(error.is_permanent(), permanent, "{name}");
        }
        for name in ["NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected", "TimedOut"] {
            let error = of(&format!("org.freedesktop.DBus.Error.{name}"));
            assert!(matches!(error, UnitError::Bus { .. }), "{name}: {error:?}");
        }
        assert!(is_no_such_unit(&answer("org.freedesktop.systemd1.NoSuchUnit")));
        assert!(!is_no_such_unit(&answer("org.freedesktop.systemd1.UnitMasked")));
    }
}
