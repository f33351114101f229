//! Changes of a list: what is new, other or gone since the last look.
//!
//! Ages and loads, which never stand still, are no change.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::resource::Kind;

/// What was seen last of each object.
#[derive(Debug, Default)]
pub(crate) struct Known {
    objects: BTreeMap<String, Value>,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// It is new, or other than it was.
    Now(Value),
    /// It is gone; this is what it was.
    Gone(Value),
}

impl Known {
    /// Takes in a whole list, and returns what is new in it, by name.
    pub(crate) fn update(&mut self, kind: Kind, items: Vec<Value>) -> Vec<Change> {
        let mut next: BTreeMap<String, Value> = BTreeMap::new();
        let mut changes = Vec::new();
        for item in items {
            let Some(name) = kind.name_in(&item).map(str::to_owned) else { continue };
            if self.objects.remove(&name).is_none_or(|before| steady(&before) != steady(&item)) {
                changes.push(Change::Now(item.clone()));
            }
            next.insert(name, item);
        }
        changes.extend(std::mem::replace(&mut self.objects, next).into_values().map(Change::Gone));
        changes
    }
}

impl Known {
    /// Takes in one object that is new or other, and returns it if that is so.
    pub(crate) fn put(&mut self, kind: Kind, item: Value) -> Option<Change> {
        let name = kind.name_in(&item)?.to_owned();
        let before = self.objects.insert(name, item.clone());
        before.is_none_or(|before| steady(&before) != steady(&item)).then_some(Change::Now(item))
    }

    /// An object is gone; returns it if it was known.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Change> {
        self.objects.remove(name).map(Change::Gone)
    }
}

/// The object without what changes all the time.
fn steady(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("heartbeatAgeMs");
        fields.remove("loadPercent");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_told() {
        let app = |name: &str, mode: &str| json!({"metadata": {"name": name}, "spec": {"mode": mode}});
        let mut known = Known::default();
        assert_eq!(known.update(Kind::App, vec![app("a", "Ring"), app("b", "Ring")]).len(), 2);
        assert_eq!(known.update(Kind::App, vec![app("a", "Ring"), app("b", "Spread")]), [Change::Now(app("b", "Spread"))]);
        assert_eq!(known.update(Kind::App, vec![app("a", "Ring")]), [Change::Gone(app("b", "Spread"))]);
        let node = |age: u32, state: &str| json!({"node": {"name": "n1"}, "state": state, "heartbeatAgeMs": age, "loadPercent": age});
        let mut known = Known::default();
        known.update(Kind::Node, vec![node(1, "Ready")]);
        assert_eq!(known.update(Kind::Node, vec![node(2, "Ready")]), []);
        assert_eq!(known.update(Kind::Node, vec![node(3, "NotReady")]), [Change::Now(node(3, "NotReady"))]);
    }
}
