//! How an instance is checked.

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;
use crate::health::{ExecCheck, HealthSpec, HttpCheck, PATH_BYTES_MAX, RESTARTS_MAX, SystemdCheck, THRESHOLD_MAX};

/// Most sub-states of a unit that may pass.
const SUB_STATES_MAX: usize = 16;
/// Longest name of a sub-state, in bytes.
const SUB_STATE_BYTES_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn health(&mut self) {
        let Some(health) = &self.app.spec.health else { return };
        let HealthSpec { http, tcp, exec, systemd, .. } = health;
        let fields = ["http", "tcp", "exec", "systemd"];
        match [http.is_some(), tcp.is_some(), exec.is_some(), systemd.is_some()].into_iter().filter(|some| *some).count() {
            1 => {}
            0 if fields.iter().any(|field| !self.sound(&format!("/spec/health/{field}"))) => {}
            0 => {
                let hint = "add one of `http: {port: 8080}`, `tcp: {port: 5432}`, `exec: {command: [...]}` and `systemd: {}`".to_owned();
                self.value("/spec/health", Rule::HealthCheck, "`health` has no check", hint);
            }
            _ => {
                let hint = "keep one of `http`, `tcp`, `exec` and `systemd`".to_owned();
                self.value("/spec/health", Rule::HealthCheck, "`health` has more than one check", hint);
            }
        }
        if let Some(http) = http {
            self.http(http);
        }
        for (name, port) in [("http", http.as_ref().map(|c| c.port)), ("tcp", tcp.as_ref().map(|c| c.port))] {
            if port == Some(0) {
                self.value(&format!("/spec/health/{name}/port"), Rule::OutOfRange, "`port` is not between 1 and 65535", None);
            }
        }
        if let Some(ExecCheck { command, user }) = exec {
            self.command("/spec/health/exec/command", command);
            self.account("/spec/health/exec/user", "user", user.as_deref());
        }
        if let Some(systemd) = systemd {
            self.systemd(systemd);
        }
        self.times(health);
        for (name, threshold) in [("successThreshold", health.success_threshold), ("failureThreshold", health.failure_threshold)] {
            if !(1..=THRESHOLD_MAX).contains(&threshold) {
                let message = format!("`{name}` is not between 1 and {THRESHOLD_MAX}");
                self.value(&format!("/spec/health/{name}"), Rule::OutOfRange, message, None);
            }
        }
        if health.restarts.attempts > RESTARTS_MAX {
            let message = format!("`attempts` is not between 0 and {RESTARTS_MAX}");
            self.value("/spec/health/restarts/attempts", Rule::OutOfRange, message, None);
        }
    }

    fn times(&mut self, health: &HealthSpec) {
        let times = [
            ("interval", &health.interval, health.interval(), "write a time from `100ms` to `60m`"),
            ("timeout", &health.timeout, health.timeout(), "write a time from `10ms` to `5m`"),
            ("startGrace", &health.start_grace, health.start_grace(), "write such as `500ms`, `30s` or `2m`, at most an hour"),
            ("restarts/window", &health.restarts.window, health.restarts.window(), "write such as `30s` or `10m`, at most a day (`1440m`)"),
        ];
        for (name, given, time, hint) in times {
            if time.is_none() {
                let field = name.rsplit('/').next().unwrap_or(name);
                let message = format!("{} is no time that `{field}` takes", quote(given));
                self.value(&format!("/spec/health/{name}"), Rule::HealthTime, message, hint.to_owned());
            }
        }
    }

    fn http(&mut self, http: &HttpCheck) {
        const PATH: &str = "/spec/health/http/path";
        if !http.path.starts_with('/') || http.path.bytes().any(|b| !b.is_ascii_graphic()) {
            let hint = "it begins with `/` and has neither spaces nor letters beyond ASCII; write those as `%20` and the like".to_owned();
            self.value(PATH, Rule::HealthValue, format!("{} is no path of a request", quote(&http.path)), hint);
        }
        self.at_most(PATH, http.path.len(), PATH_BYTES_MAX, "byte");
        if http.statuses().is_none() {
            let message = format!("{} is no status and no range of them", quote(&http.status));
            self.value("/spec/health/http/status", Rule::HealthValue, message, "write such as `200` or `200-399`".to_owned());
        }
    }

    fn systemd(&mut self, systemd: &SystemdCheck) {
        const AT: &str = "/spec/health/systemd/subStates";
        if systemd.sub_states.is_empty() {
            self.value(AT, Rule::HealthValue, "no sub-state would ever pass", "write `[running]`, or leave it out".to_owned());
        }
        self.at_most(AT, systemd.sub_states.len(), SUB_STATES_MAX, "sub-state");
        for (n, state) in systemd.sub_states.iter().enumerate() {
            let word = state.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !state.starts_with('-') && !state.ends_with('-');
            if state.is_empty() || state.len() > SUB_STATE_BYTES_MAX || !word {
                let message = format!("{} is no sub-state of a unit", quote(state));
                self.value(&format!("{AT}/{n}"), Rule::HealthValue, message, "such as `running` or `exited`".to_owned());
            }
        }
    }
}
