use std::time::{Duration, UNIX_EPOCH};

use http::header::USER_AGENT;

use super::*;

fn text(format: &str) -> Vec<Piece> {
    match Format::read(format) {
        Ok(Format::Text(pieces)) => pieces,
        other => panic!("{format}: {other:?}"),
    }
}

fn operator(field: Field) -> Piece {
    Piece::Operator(Operator { field, length: None })
}

fn header(name: &'static str) -> HeaderChoice {
    HeaderChoice { first: HeaderName::from_static(name), second: None, otherwise: None }
}

#[test]
fn a_format_is_a_word_a_text_or_an_object() {
    assert_eq!(Format::read("off"), Ok(Format::Off));
    assert_eq!(Format::read(""), Ok(Format::Off));
    assert_eq!(Format::read("json"), Ok(Format::Json));
    assert_eq!(text("text").len(), 31, "Envoy's default: 15 operators, and what stands around them");
    assert_eq!(
        text("100%% of %REQ(X-A?:PATH):10% in %DURATION%ms"),
        [
            Piece::Text("100% of ".to_owned()),
            Piece::Operator(Operator {
                field: Field::RequestHeader(HeaderChoice {
                    otherwise: Some(RequestPart::Path),
                    ..header("x-a")
                }),
                length: Some(10)
            }),
            Piece::Text(" in ".to_owned()),
            operator(Field::Duration),
            Piece::Text("ms".to_owned()),
        ]
    );
    let member = |name: &str, value| Member { name: name.to_owned(), value };
    assert_eq!(
        Format::read(r#"{"status": "%RESPONSE_CODE%", "of": {"app": "%GAUZE(peer_app)%"}, "v": 1}"#),
        Ok(Format::Object(vec![
            member(
                "of",
                MemberValue::Object(vec![member("app", MemberValue::Text(vec![operator(Field::PeerApp)]))])
            ),
            member("status", MemberValue::Text(vec![operator(Field::Status)])),
            member("v", MemberValue::Constant("1".to_owned())),
        ]))
    );
}

/// Istio's `accessLogFormat` as it is documented, so that a team can take theirs along.
#[test]
fn the_format_of_istio_is_read() {
    let istio = concat!(
        r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% "#,
        r#"%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "#,
        r#""%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "#,
        r#"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "#,
        r#""%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% "#,
        r#"%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#,
        "\n"
    );
    let operators = text(istio).iter().filter(|piece| matches!(piece, Piece::Operator(_))).count();
    assert_eq!(operators, 24);
}

#[test]
fn what_is_kept_of_headers_is_what_the_format_names() {
    let format =
        Format::read("%REQ(User-Agent)% %REQ(user-agent?X-B)% %RESP(x-c)% %TRAILER(x-d)% %REQ(:PATH)%");
    let names =
        |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    assert_eq!(
        format.expect("a format").headers(),
        [names(&["user-agent", "x-b"]), names(&["x-c"]), names(&["x-d"])]
    );
    assert_eq!(
        Format::Json.headers(),
        [vec![HeaderName::from_static("x-request-id"), USER_AGENT], vec![], vec![]]
    );
    assert!(Format::Off.headers().iter().all(Vec::is_empty));
}

#[test]
fn a_mistake_says_where_it_is_and_what_to_write() {
    for (format, message) in [
        ("jsn", "`jsn` is no format: write off, json, text, or a format with Envoy's operators"),
        ("{}", "`{}` is no format"),
        (r#"{"a": "%DURATION%""#, "the format begins as a JSON object and is none: EOF"),
        (r#"{"a": "b", "c": "x %DURATIN%"}"#, "at byte 19: %DURATIN% is no operator that gauze knows"),
        (
            "%REQ(:METHOD)% %FOO%",
            "at byte 15: %FOO% is no operator that gauze knows; docs/access-log.md lists them",
        ),
        (
            "50% %DURATION%",
            "at byte 2: a % begins an operator, as in %DURATION%; write %% for a percent sign",
        ),
        ("%DURATION", "at byte 0: %DURATION is not ended by a %"),
        ("%REQ%", "at byte 0: %REQ% wants a header in brackets"),
        ("%REQ(a b)%", "at byte 0: `a b` is no name of a header"),
        ("%REQ(:PATH?X)%", "at byte 0: %REQ(:PATH?X)%: `:PATH` is always there, nothing comes second"),
        ("%REQ(:PATH%", "at byte 0: the bracket of %REQ( is not closed"),
        ("%DURATION(x)%", "at byte 0: %DURATION(x)%: DURATION takes nothing in brackets"),
        ("%REQ(a):b%", "at byte 0: %REQ:… wants a length in bytes after the colon"),
        ("%GRPC_STATUS(x)%", "at byte 0: %GRPC_STATUS(x)%: write CAMEL_STRING, SNAKE_STRING or NUMBER"),
        ("%START_TIME(%q)%", "at byte 0: %START_TIME(%q)%: after % write Y m b d"),
        ("%GAUZE(x)%", "at byte 0: %GAUZE(x)%: write one of time, direction, protocol"),
    ] {
        let error = Format::read(format).expect_err(format).to_string();
        assert!(error.starts_with(message), "{format}: {error}");
    }
    assert_eq!(Format::read(&"x".repeat(FORMAT_MAX + 1)), Err(FormatError::TooLong(FORMAT_MAX + 1)));
}

#[test]
fn a_time_is_written_as_asked_for() {
    let time = UNIX_EPOCH + Duration::from_micros(1_795_297_442_007_500);
    for (format, wanted) in [
        ("%Y/%m/%dT%H:%M:%S%z %s", "2026/11/21T21:44:02+0000 1795297442"),
        ("%d/%b/%Y %T.%3f %Z", "21/Nov/2026 21:44:02.007 UTC"),
        ("%F %f 100%%", "2026-11-21 007500000 100%"),
    ] {
        assert_eq!(TimeFormat::read(format).map(|format| format.write(time)).as_deref(), Ok(wanted));
    }
    for (millis, wanted) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_827_696_789, "2000-02-29T12:34:56.789Z"),
        (1_795_297_442_007, "2026-11-21T21:44:02.007Z"),
    ] {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(millis)), wanted);
    }
}

#[test]
fn a_status_of_grpc_has_a_name() {
    for (status, form, wanted) in [
        (7, GrpcStatusForm::Camel, "PermissionDenied"),
        (7, GrpcStatusForm::Snake, "PERMISSION_DENIED"),
        (7, GrpcStatusForm::Number, "7"),
        (0, GrpcStatusForm::Camel, "OK"),
        (1, GrpcStatusForm::Camel, "Canceled"),
        (99, GrpcStatusForm::Snake, "99"),
    ] {
        assert_eq!(grpc_status_name(status, form), wanted);
    }
}
