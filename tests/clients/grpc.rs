//! grpcio: each kind of call, with what comes before and after its messages; nothing is held back until a stream is whole, and an
//! end on one side is an end on the other.

use serde_json::json;

use super::{Between, access_line, ask, python, serve};

#[tokio::test]
async fn grpcio_streams_both_ways_with_metadata_trailers_deadlines_and_cancellation() {
    let Some(python) = python() else { return };
    let server = serve(python, "grpc_server.py", &[]).await;
    let app = server.address("app");
    for (port_name, port) in [("grpc", 80), ("any", 80)] {
        let between = Between::start(app, port_name, port).await;
        for (way, address) in between.ways() {
            let told = ask(python, "grpc_client.py", &[&address.to_string(), &app.to_string()]).await;
            let wanted = json!({
                "unary": ["hello", "asked", "yes", true, "OK"],
                "error": ["FAILED_PRECONDITION", "no cart: ñ, 100 %\n", "test"],
                "unknown": ["UNIMPLEMENTED", "Method not found!"],
                "client_streams": "0,1,2,3,4",
                "server_streams": "0,1,2,3,4",
                "both_stream": ["re: 0,re: 1,re: 2,re: 3,re: 4", true, "OK"],
                "large": [4_194_304, true],
                "hundred": 100,
                "deadline": ["begun", "DEADLINE_EXCEEDED", true],
                "cancel": ["begun", "CANCELLED"],
            });
            assert_eq!(told, wanted, "{way}, port `{port_name}`");
        }
    }
}

#[tokio::test]
async fn metrics_and_access_log_tell_of_a_grpc_status_that_came_in_trailers() {
    let Some(python) = python() else { return };
    let server = serve(python, "grpc_server.py", &[]).await;
    let app = server.address("app");
    let between = Between::start(app, "grpc", 80).await;
    let arguments = [between.dial().to_string(), app.to_string()];
    let both = [&between.web, &between.store];
    ask(python, "grpc_client.py", &[&arguments[0], &arguments[1], "error"]).await;
    for sidecar in both {
        let line = access_line(sidecar, "the failed call", |line| line["path"] == "/test.Shop/Fail").await;
        let told = ["protocol", "method", "status", "grpc_status", "tls"].map(|key| line[key].clone());
        assert_eq!(json!(told), json!(["grpc", "POST", 200, 9, "mutual"]));
    }
    ask(python, "grpc_client.py", &[&arguments[0], &arguments[1], "large"]).await;
    for sidecar in both {
        let line = access_line(sidecar, "the large call", |line| line["path"] == "/test.Shop/Echo").await;
        // Each message has five bytes before it.
        assert_eq!(json!([line["received"], line["sent"]]), json!([4_194_309, 4_194_309]));
        sidecar.counts("gauze_requests_total", &["protocol=\"grpc\"", "grpc_status=\"9\""], 1.0).await;
        sidecar.counts("gauze_requests_total", &["protocol=\"grpc\"", "grpc_status=\"0\""], 1.0).await;
    }
}
