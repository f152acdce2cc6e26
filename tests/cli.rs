//! The command-line tool: standard input and output, and refused arguments.

#![allow(clippy::expect_used, reason = "a test may fail loudly")]

use base64ct::Encoding as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs the tool with a text on standard input.
fn callbound(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbound"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the tool reads its input");
    child.wait_with_output().expect("the tool ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn closed_pipe_ends_a_command_without_an_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbound"));
    command.arg("schema").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the tool ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn policy_on_standard_input_is_checked() {
    let policy = text(&callbound(&["init"], "").stdout);
    assert_eq!(callbound(&["check", "-"], &policy).status.code(), Some(0));
    let output = callbound(&["check", "-"], &policy.replace("\"routes\"", "\"rutes\""));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("rutes"));
}

#[test]
fn key_prefix_with_a_space_is_refused() {
    let output = callbound(&["gen-key", "a b"], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text(&output.stderr).contains("prefix `a b`: expected 3 to 32 characters"));
}

#[test]
fn store_function_is_printed_for_redis() {
    let output = callbound(&["store", "function"], "");
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("#!lua name=callbound_1\n"));
}

#[test]
fn store_install_without_port_is_refused() {
    let output = callbound(&["store", "install", "redis://:secret@127.0.0.1"], "");
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("as HOST:PORT, as in 127.0.0.1:6379") && !message.contains("secret"),
        "{message}"
    );
}

#[test]
fn token_with_control_characters_is_inspected_as_escapes() {
    // Header `{}`, claims with an escape sequence and a right-to-left override.
    let claims = "\u{1b}[2Jverified\u{202e}";
    let token =
        format!("ct_eyJhIjoxfQ.{}.e30", base64ct::Base64UrlUnpadded::encode_string(claims.as_bytes()));
    let output = callbound(&["inspect", &token], "");
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("claims  \\u{1b}[2Jverified\\u{202e}\n"), "{shown:?}");
}

#[test]
fn admin_page_and_origins_are_checked_before_rendering() {
    let policy = text(&callbound(&["init"], "").stdout);
    let folder = std::env::temp_dir().join(format!("callbound-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("policy.json");
    std::fs::write(&file, policy).expect("a file");
    let (file, out) = (file.display().to_string(), folder.display().to_string());
    let render = |option: &str, value: &str| {
        let output =
            callbound(&["envoy", &file, "--upstream", "127.0.0.1:9", "--out", &out, option, value], "");
        (output.status.code(), text(&output.stderr))
    };
    for value in ["*", "app.example.com", "https://app.example.com/", "https://App.example.com", "null"] {
        let (code, message) = render("--cors", value);
        assert_eq!(code, Some(1), "{value}");
        assert!(message.contains("expected an origin"), "{message}");
    }
    let (code, message) = render("--admin", "0.0.0.0:9901");
    assert_eq!(code, Some(1));
    assert!(message.contains("expected a loopback address"), "{message}");
    assert_eq!(render("--cors", "https://app.example.com").0, Some(0));
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn nginx_headers_are_printed_for_nginx_only() {
    let policy = text(&callbound(&["init"], "").stdout);
    let output = callbound(&["nginx-headers", "-"], &policy);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the policy is for `envoy`"));
    let policy = policy
        .replace("\"host\": \"envoy\"", "\"host\": \"nginx\", \"entropy\": {\"env\": \"CALLBOUND_ENTROPY\"}");
    let output = callbound(&["nginx-headers", "-"], &policy);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("\nproxy_set_header authorization \"\";\n"));
}

#[test]
fn nginx_configuration_is_checked_with_the_exit_codes_of_check() {
    let file = "gateways/nginx/nginx.conf";
    let output = callbound(&["check", "--strict", "--nginx", file, "gateways/nginx/policy.json"], "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("note: gateways/nginx/nginx.conf: read as one configuration file"));
    let open = "# configuration file /etc/nginx/nginx.conf:\nhttp { server { location / { proxy_pass http://a; } } }\n";
    let output = callbound(&["check", "--nginx", "-", "--format", "json"], open);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("read as the output of `nginx -T`, with 1 file"));
    let place = r#""file":"/etc/nginx/nginx.conf","line":1,"directive":"location /""#;
    assert!(text(&output.stdout).contains(place), "{}", text(&output.stdout));
    assert_eq!(callbound(&["check", "--nginx", "gone.conf"], "").status.code(), Some(2));
}
