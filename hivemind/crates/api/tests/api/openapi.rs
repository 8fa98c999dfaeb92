//! The OpenAPI document against what the server really does.

use hivemind_model::Service;
use serde_json::{Map, Value, json};

use crate::{
    harness::{Server, app_with},
    node::line,
};

async fn document(server: &Server) -> Value {
    let (status, document) = server.get("/openapi.json").await;
    assert_eq!(status, 200);
    document
}

#[tokio::test]
async fn the_document_names_every_route_with_its_errors() {
    let server = Server::start().await;
    let document = document(&server).await;
    assert_eq!(document, serde_json::to_value(hivemind_api::document()).unwrap());
    assert_eq!(document["info"]["title"], "Hivemind");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push(format!("{} {path}", method.to_uppercase()));
            check_operation(&format!("{method} {path}"), path, operation);
        }
    }
    operations.sort();
    let mut expected = vec![
        "DELETE /v1/jointokens/{token}",
        "DELETE /v1/namespaces/{namespace}",
        "DELETE /v1/namespaces/{namespace}/apps/{app}",
        "DELETE /v1/namespaces/{namespace}/networkpolicies/{policy}",
        "DELETE /v1/namespaces/{namespace}/services/{service}",
        "DELETE /v1/namespaces/{namespace}/volumes/{volume}",
        "DELETE /v1/nodes/{node}",
        "DELETE /v1/tokens/{token}",
        "GET /healthz",
        "GET /metrics",
        "GET /openapi.json",
        "GET /v1/apps",
        "GET /v1/cluster",
        "GET /v1/flows",
        "GET /v1/flows/history",
        "GET /v1/images",
        "GET /v1/jointokens",
        "GET /v1/namespaces",
        "GET /v1/namespaces/{namespace}",
        "GET /v1/namespaces/{namespace}/apps/{app}",
        "GET /v1/namespaces/{namespace}/apps/{app}/placement",
        "GET /v1/namespaces/{namespace}/networkpolicies/{policy}",
        "GET /v1/namespaces/{namespace}/replicas/{replica}",
        "GET /v1/namespaces/{namespace}/replicas/{replica}/exec",
        "GET /v1/namespaces/{namespace}/replicas/{replica}/logs",
        "GET /v1/namespaces/{namespace}/services/{service}",
        "GET /v1/namespaces/{namespace}/volumes/{volume}",
        "GET /v1/net/trace",
        "GET /v1/networkpolicies",
        "GET /v1/networkpolicies/check",
        "GET /v1/networkpolicies/matrix",
        "GET /v1/networkpolicies/suggest",
        "GET /v1/nodes",
        "GET /v1/nodes/{node}",
        "GET /v1/replicas",
        "GET /v1/services",
        "GET /v1/session",
        "GET /v1/status",
        "GET /v1/tokens",
        "GET /v1/volumes",
        "GET /v1/watch",
        "POST /v1/images/import",
        "POST /v1/jointokens",
        "POST /v1/leave",
        "POST /v1/login",
        "POST /v1/login-codes",
        "POST /v1/logout",
        "POST /v1/namespaces",
        "POST /v1/namespaces/{namespace}/apps",
        "POST /v1/namespaces/{namespace}/apps/{app}/restart",
        "POST /v1/namespaces/{namespace}/services",
        "POST /v1/namespaces/{namespace}/volumes",
        "POST /v1/net/check",
        "POST /v1/networkpolicies/apply",
        "POST /v1/networkpolicies/simulate",
        "POST /v1/tokens",
        "PUT /v1/namespaces/{namespace}",
        "PUT /v1/namespaces/{namespace}/apps/{app}",
        "PUT /v1/namespaces/{namespace}/apps/{app}/scale",
        "PUT /v1/nodes/{node}",
    ];
    expected.sort_unstable();
    assert_eq!(operations, expected);
}

fn check_operation(what: &str, path: &str, operation: &Value) {
    assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{what}");
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let described = parameters.iter().any(|p| p["name"] == part && p["in"] == "path");
        assert!(described, "{what} does not describe {part}");
    }
    assert!(parameters.iter().all(|p| p["description"].is_string()), "{what}: {parameters:?}");
    let responses = operation["responses"].as_object().unwrap();
    assert!(responses.keys().any(|status| status.starts_with('2') || status == "101"), "{what}");
    let errors: Vec<_> = responses.iter().filter(|(status, _)| status.as_str() >= "400").collect();
    assert!(!path.starts_with("/v1") || !errors.is_empty(), "{what} says nothing of errors");
    for (status, response) in errors {
        let schema = &response["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(schema, "#/components/schemas/ApiError", "{what} {status}");
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let target = document.pointer(reference.strip_prefix('#').unwrap());
                    assert!(target.is_some(), "{reference}");
                }
                map.values().for_each(|value| walk(value, document));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let server = Server::start().await;
    let document = document(&server).await;
    walk(&document, &document);
}

#[tokio::test]
async fn what_the_server_sends_is_what_the_document_describes() {
    let server = Server::start().await;
    let document = document(&server).await;
    server.create_node().await;
    let mut body = app_with("web", &["web.local"], &[8080]);
    body["metadata"]["labels"] = json!({"team": "a"});
    body["spec"]["template"]["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]);
    body["spec"]["template"]["containers"][0]["resources"] = json!({"cpu": "500m", "memory": "64Mi"});
    body["spec"]["template"]["containers"][0]["volumeMounts"] = json!([{"volume": "v", "path": "/v"}]);
    server.create_app(body).await;
    server.create_replica("web", "web-abcde").await;
    let volume = json!({"metadata": {"name": "data"}, "spec": {"node": "n1"}});
    server.send("POST", "/v1/namespaces/default/volumes", volume).await;
    let endpoint = |service: &mut Service| {
        let endpoint = json!({"replica": "web-abcde", "node": "n1", "ipv4": "10.200.0.5", "ipv6": "fd00::5"});
        service.status.endpoints = vec![serde_json::from_value(endpoint).unwrap()];
        Ok(())
    };
    server.objects.update_with("default", "web", endpoint).await.unwrap();

    for (path, template, status) in [
        ("/v1/status", "/v1/status", "200"),
        ("/v1/apps", "/v1/apps", "200"),
        ("/v1/replicas", "/v1/replicas", "200"),
        ("/v1/services", "/v1/services", "200"),
        ("/v1/volumes", "/v1/volumes", "200"),
        ("/v1/nodes", "/v1/nodes", "200"),
        ("/v1/images", "/v1/images", "200"),
        ("/v1/namespaces/default/apps/web", "/v1/namespaces/{namespace}/apps/{app}", "200"),
        ("/v1/namespaces/default/apps/none", "/v1/namespaces/{namespace}/apps/{app}", "404"),
        ("/v1/apps?watch=maybe", "/v1/apps", "400"),
    ] {
        let (got, value) = server.get(path).await;
        assert_eq!(got.as_str(), status, "{path}");
        let response = &document["paths"][template]["get"]["responses"][status];
        check(&document, &response["content"]["application/json"]["schema"], &value, path);
    }

    let mut watch = server.lines("/v1/services?watch=true").await;
    let content = &document["paths"]["/v1/services"]["get"]["responses"]["200"]["content"];
    for _ in 0..2 {
        check(&document, &content["application/x-ndjson"]["schema"], &watch.json().await, "watch");
    }
    let logged = serde_json::to_value(line("web-abcde", "one")).unwrap();
    check(&document, &json!({"$ref": "#/components/schemas/LogLine"}), &logged, "log");
}

#[test]
fn the_check_itself_finds_what_does_not_fit() {
    let document = serde_json::to_value(hivemind_api::document()).unwrap();
    let schema = json!({"$ref": "#/components/schemas/Scale"});
    assert!(fits(&document, &schema, &json!({"replicas": 1}), "").is_ok());
    for wrong in [json!({}), json!({"replicas": "1"}), json!({"replicas": 1, "more": 2}), json!([])] {
        assert!(fits(&document, &schema, &wrong, "").is_err(), "{wrong}");
    }
}

#[test]
fn the_reference_of_the_api_is_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/reference/openapi.json");
    let document = hivemind_api::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document,
        "docs/reference/openapi.json is out of date: run this test with UPDATE_REFERENCE=1"
    );
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(fault) = fits(document, schema, value, at) {
        panic!("{fault}");
    }
}

/// Whether `value` is as `schema` says: types, required fields, no fields beyond those described. The part of JSON
/// Schema that the document uses.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).ok_or_else(|| format!("{at}: no {reference}"))?;
        return fits(document, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| fits(document, choice, value, at).is_ok()).count();
        return if fitting == 1 {
            Ok(())
        } else {
            Err(format!("{at}: fits {fitting} of {}", schema["oneOf"]))
        };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{at}: no schema for {value}")),
    };
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(&actual) {
        return Err(format!("{at}: {value} is not of {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is none of {allowed:?}"));
    }
    match value {
        Value::Array(items) => {
            let each = |(i, item)| fits(document, &schema["items"], item, &format!("{at}[{i}]"));
            items.iter().enumerate().try_for_each(each)
        }
        Value::Object(fields) => fits_object(document, schema, fields, at),
        _ => Ok(()),
    }
}

fn fits_object(
    document: &Value,
    schema: &Value,
    fields: &Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            return Err(format!("{at}: {required} is missing"));
        }
    }
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        let described = match schema["properties"].get(name) {
            Some(property) => property,
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => return Err(format!("{at} is not described")),
        };
        fits(document, described, value, &at)?;
    }
    Ok(())
}
