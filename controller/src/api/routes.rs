//! The one table of routes: what answers, and what the OpenAPI document says of it. A route without its words cannot be added.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Router, middleware};
use cluster_schemas::api::{
    AppView, Applied, CordonRequest, Cordoned, Deleted, Failovers, ForceRequest, Forced, List, Located, NodeView, RecoverRequest,
    Recovered, RecoveryView, Removed, ReplaceRequest, RingTable, Switchover, SwitchoverRequest, VersionInfo,
};
use cluster_schemas::database::{
    DatabaseDivergence, DatabaseJob, DatabaseNode, DatabaseStatus, DatabaseSyncRequest, DatabaseSynced, DatabaseVerified, DatabaseWork,
};
use cluster_schemas::event::Events;
use cluster_schemas::history::{Audit, Revision};
use cluster_schemas::node::VoterList;
use cluster_schemas::openapi::{Document, Operation};
use cluster_schemas::placement::PlacementView;
use cluster_schemas::plan::{AppliedAll, Plan, PlanRequest, SetView};
use cluster_schemas::state::{StateEntry, StateList, StatePut, StateWritten};
use cluster_schemas::watch::WatchEvent;
use cluster_schemas::{App, Assignment};
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::query::list_parameters;
use super::{Api, apps, audit, auth, databases, events, list, nodes, operate, plan, recovery, rings, roles, state, version, voters};

/// Parameters in paths: name, meaning, example.
const PARAMETERS: &[(&str, &str, &str)] = &[
    ("name", "Name of the object.", "web"),
    ("node", "Name of the node.", "n1"),
    ("app", "Name of the App.", "web"),
    ("file", "Name of the divergence, as the status lists it.", ""),
    ("key", "The key; it may contain slashes, as they are.", "progress/1"),
];

/// What the document says first.
const ABOUT: &str = "High availability for plain Linux machines. Any controller answers. Errors are RFC 9457 problems, `errors` names each field by a \
JSON pointer (`?name`: a parameter of the query). Lists have a `resourceVersion`: begin a watch there (`watch=true`), and resume it from the last `id`. \
Tokens are needed where the controller has any (always, unless it listens on loopback only); `x-least-role` is what they must be allowed.";

struct Routes {
    router: Router<Arc<Api>>,
    document: Document,
}

impl Routes {
    fn route(mut self, method: &str, path: &str, handler: MethodRouter<Arc<Api>>, operation: Operation) -> Self {
        self.document.add(method, path, roles::least(method, path), operation);
        self.router = self.router.route(path, handler);
        self
    }

    fn get<T: 'static, H: Handler<T, Arc<Api>>>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.route("GET", path, get(handler), operation)
    }

    fn put<T: 'static, H: Handler<T, Arc<Api>>>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.route("PUT", path, on(MethodFilter::PUT, handler), operation)
    }

    fn post<T: 'static, H: Handler<T, Arc<Api>>>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.route("POST", path, on(MethodFilter::POST, handler), operation)
    }

    fn delete<T: 'static, H: Handler<T, Arc<Api>>>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.route("DELETE", path, on(MethodFilter::DELETE, handler), operation)
    }

    /// A POST of many Apps.
    fn post_many<T: 'static, H: Handler<T, Arc<Api>>>(self, path: &str, handler: H, operation: Operation) -> Self {
        self.route("POST", path, on(MethodFilter::POST, handler).layer(DefaultBodyLimit::max(plan::BODY_MAX)), operation)
    }
}

/// An operation; `id` is its name in generated clients.
const fn op(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, summary)
}

/// Objects of one kind, or a watch of them.
fn many<T: JsonSchema>(id: &'static str, summary: &'static str) -> Operation {
    op(id, summary).query_shape(list_parameters).answers::<List<T>>().watched::<WatchEvent<T>>()
}

/// One object, or a watch of it.
fn single<T: JsonSchema>(id: &'static str, summary: &'static str) -> Operation {
    op(id, summary).query_shape(list_parameters).answers::<T>().watched::<WatchEvent<T>>()
}

/// An App that every reader of the document can send.
fn example_app() -> Value {
    json!({
        "apiVersion": cluster_schemas::API_VERSION,
        "kind": "App",
        "metadata": { "name": "web" },
        "spec": { "mode": "Replicas", "replicas": 2, "exec": { "command": ["/usr/bin/python3", "-m", "http.server", "8080"] } },
    })
}

fn objects(routes: Routes) -> Routes {
    routes
        .get("/v1/apps", list::apps, many::<AppView>("listApps", "Apps with their status; or a watch of them"))
        .get("/v1/apps/{name}", list::app, single::<AppView>("getApp", "One App with its status; or a watch of it"))
        .put(
            "/v1/apps/{name}",
            apps::put,
            op("putApp", "Write an App: 201 where it is new; with metadata.resourceVersion only if it is still that one")
                .query::<apps::PutQuery>()
                .body_such_as::<App>(example_app())
                .answers::<Applied>()
                .answers_with::<Applied>(201),
        )
        .delete("/v1/apps/{name}", apps::delete, op("deleteApp", "Delete an App").query::<apps::DeleteQuery>().answers::<Deleted>())
        .get(
            "/v1/apps/{name}/placement",
            plan::placement,
            op("explainPlacement", "Every node, every rule, and the smallest change that would make it fit").answers::<PlacementView>(),
        )
        .get(
            "/v1/apps/{name}/revisions",
            audit::revisions_of,
            op("listRevisionsOfApp", "Revisions of one App, though it be deleted, the latest last").answers::<List<Revision>>(),
        )
        .post(
            "/v1/apps/{name}/switchover",
            operate::switch_over,
            op("switchOver", "Hand a Singleton over to another node").body::<SwitchoverRequest>().answers::<Switchover>(),
        )
        .get(
            "/v1/apps/{name}/kv",
            state::list,
            op("listKeys", "Keys of an App's shared state").query::<state::ListQuery>().answers::<StateList>(),
        )
        .get("/v1/apps/{name}/kv/{*key}", state::get, op("getKey", "Value of a key").answers::<StateEntry>())
        .put(
            "/v1/apps/{name}/kv/{*key}",
            state::put,
            op("putKey", "Write a key, with conditions if wanted").body::<StatePut>().answers::<StateWritten>(),
        )
        .delete(
            "/v1/apps/{name}/kv/{*key}",
            state::delete,
            op("deleteKey", "Delete a key").query::<state::DeleteQuery>().answers::<StateWritten>(),
        )
        .get("/v1/nodes", list::nodes, many::<NodeView>("listNodes", "Nodes and what they report; or a watch of them"))
        .get("/v1/nodes/{name}", list::node, single::<NodeView>("getNode", "One node; or a watch of it"))
        .delete("/v1/nodes/{name}", nodes::delete, op("removeNode", "Forget a node").query::<nodes::RemoveQuery>().answers::<Removed>())
        .put(
            "/v1/nodes/{name}/cordon",
            operate::cordon,
            op("cordonNode", "Place nothing new there; or move away what may move").body::<CordonRequest>().answers::<Cordoned>(),
        )
        .delete("/v1/nodes/{name}/cordon", operate::uncordon, op("uncordonNode", "Place there again").answers::<Cordoned>())
        .get("/v1/assignments", list::assignments, many::<Assignment>("listAssignments", "What each node is told; or a watch of it"))
        .get("/v1/assignments/{node}", list::assignment, single::<Assignment>("getAssignment", "What one node is told; or a watch of it"))
        .get("/v1/rings/{app}", rings::table, op("getRing", "Owners of a ring's partitions").answers::<RingTable>())
        .get(
            "/v1/rings/{app}/locate",
            rings::locate,
            op("locateKey", "Partition and owner of a key").query::<rings::LocateQuery>().answers::<Located>(),
        )
}

fn databases(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/apps/{name}/database",
            databases::status,
            op("getDatabase", "How the replicas of a database stand").answers::<DatabaseStatus>(),
        )
        .post(
            "/v1/apps/{name}/database/sync",
            databases::sync,
            op("syncDatabase", "Returns once all that was committed before is on as many standbys as the App says")
                .body::<DatabaseSyncRequest>()
                .answers::<DatabaseSynced>(),
        )
        .post(
            "/v1/apps/{name}/database/accept-loss",
            databases::accept_loss,
            op("acceptLoss", "Let a promotion go on that maxLag holds back").answers::<DatabaseNode>(),
        )
        .get(
            "/v1/apps/{name}/database/divergences/{node}/{file}",
            databases::divergence,
            op("getDivergence", "What an old active had that nobody took over").answers::<DatabaseDivergence>(),
        )
        .post(
            "/v1/apps/{name}/database/verify/{node}",
            databases::verify,
            op("verifyDatabase", "Check a node's replica").answers::<DatabaseVerified>(),
        )
        .get(
            "/v1/apps/{name}/database/work/{node}",
            databases::work,
            op("getDatabaseWork", "How far a node's work is").answers::<DatabaseWork>(),
        )
        .post(
            "/v1/apps/{name}/database/work/{node}",
            databases::begin,
            op("beginDatabaseWork", "Snapshot or restore on a node").body::<DatabaseJob>().answers::<DatabaseWork>(),
        )
}

fn operations(routes: Routes) -> Routes {
    routes
        .get("/v1/audit", audit::list, op("listAudit", "Who did what, the latest last").query::<audit::HistoryQuery>().answers::<Audit>())
        .get("/v1/events", events::list, op("listEvents", "What happened").query::<events::EventsQuery>().answers::<Events>())
        .get("/v1/failovers", operate::failovers, op("listFailovers", "Take-overs of all Apps").answers::<List<Failovers>>())
        .get("/v1/failovers/{app}", operate::failovers_of, op("getFailovers", "Take-overs of one App").answers::<Failovers>())
        .post(
            "/v1/voters/replace",
            voters::replace,
            op("replaceVoter", "Let another node vote in place of one").body::<ReplaceRequest>().answers::<VoterList>(),
        )
        .post(
            "/v1/voters/force",
            voters::force,
            op("forceVoters", "Go on without a majority that is lost for good").body::<ForceRequest>().answers::<Forced>(),
        )
        .post_many(
            "/v1/plan",
            plan::plan,
            op("plan", "What an apply would do").body_such_as::<PlanRequest>(json!({ "apps": [example_app()] })).answers::<Plan>(),
        )
        .post_many(
            "/v1/apply",
            plan::apply,
            op("apply", "Write Apps, by sets, with pruning")
                .body_such_as::<PlanRequest>(json!({ "apps": [example_app()] }))
                .answers::<AppliedAll>(),
        )
        .get(
            "/v1/revisions",
            audit::revisions,
            op("listRevisions", "Revisions of all Apps, the latest last").query::<audit::RevisionsQuery>().answers::<List<Revision>>(),
        )
        .get("/v1/sets", plan::sets, op("listSets", "Apply sets").answers::<List<SetView>>())
        .get("/v1/recovery", recovery::show, op("getRecovery", "Whether the store lost what it had").answers::<RecoveryView>())
        .post(
            "/v1/recovery",
            recovery::sign,
            op("signRecovery", "Let the cluster go on after the store was lost").body::<RecoverRequest>().answers::<Recovered>(),
        )
        .get("/v1/version", version, op("getVersion", "Versions and leader").answers::<VersionInfo>())
}

/// Path of the document itself.
const OPENAPI: &str = "/v1/openapi.json";

fn table() -> (Router<Arc<Api>>, Value) {
    let Routes { router, mut document } =
        operations(databases(objects(Routes { router: Router::new(), document: Document::new(PARAMETERS) })));
    document.add("GET", OPENAPI, roles::least("GET", OPENAPI), op("getOpenapi", "This document").answers::<Value>());
    (router, document.finish("clusterctl", "v1", ABOUT))
}

/// All routes under `/v1`, each asking for its role, and the document about them.
pub(super) fn v1(api: &Arc<Api>) -> Router<Arc<Api>> {
    let (router, document) = table();
    // Shared by all answers.
    let text = Bytes::from(document.to_string());
    let answer = move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response());
    router.route(OPENAPI, get(answer)).route_layer(middleware::from_fn_with_state(Arc::clone(api), auth::require_role))
}

/// The OpenAPI 3.1 document of this API.
#[must_use]
pub fn openapi() -> Value {
    table().1
}
