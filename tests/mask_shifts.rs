//! Tests the last step of the module's build: which shifts get a mask, and that nothing else changes. The built module
//! is tested by the corpus (`hosts::module_has_a_mask_for_every_shift`).

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test may fail loudly")]

use callbound_mask_shifts::{count_unmasked, mask};
use wasmtime::{Engine, Instance, Module, Store};

/// Returns a module with one function, `shift`, of two numbers.
fn module(body: &str) -> Vec<u8> {
    module_with(body, "")
}

fn module_with(body: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {fields} (memory 1) (data (i32.const 0) "0123456789abcdefghij")
             (func (export "shift") (param i32 i32) (result i32) {body}))"#
    );
    wat::parse_str(text).expect("a module")
}

/// Asserts that masking turns one body into another.
fn assert_masked(body: &str, expected: &str) {
    let masked = mask(&module(body)).expect("a masked module").module;
    assert_eq!(masked, module(expected), "{body}");
    assert_eq!(count_unmasked(&masked).expect("a count"), 0, "{body}");
}

const MASKED: &str = "i32.const 31 i32.and i32.shl";

#[test]
fn variable_amount_is_masked() {
    assert_masked("local.get 0 local.get 1 i32.shl", &format!("local.get 0 local.get 1 {MASKED}"));
}

#[test]
fn literal_of_at_most_3_is_masked() {
    // 33 is 1, and -31 too: only the low five bits count.
    for amount in [0, 1, 2, 3, 32, 33, 35, -32, -31] {
        let operands = format!("local.get 0 i32.const {amount}");
        assert_masked(&format!("{operands} i32.shl"), &format!("{operands} {MASKED}"));
    }
}

#[test]
fn literal_above_3_is_unchanged() {
    for amount in [4, 8, 31, 36, 63, -1] {
        let body = format!("local.get 0 i32.const {amount} i32.shl");
        assert_masked(&body, &body);
    }
}

#[test]
fn result_of_block_is_masked() {
    let operands = "local.get 0 (block (result i32) i32.const 4)";
    assert_masked(&format!("{operands} i32.shl"), &format!("{operands} {MASKED}"));
    let operands = "local.get 0 (if (result i32) (local.get 1) (then i32.const 2) (else i32.const 4))";
    assert_masked(&format!("{operands} i32.shl"), &format!("{operands} {MASKED}"));
}

#[test]
fn and_with_another_number_is_masked() {
    let operands = "local.get 0 local.get 1 i32.const 3 i32.and";
    assert_masked(&format!("{operands} i32.shl"), &format!("{operands} {MASKED}"));
}

#[test]
fn masked_shift_is_unchanged() {
    let body = format!("local.get 0 local.get 1 {MASKED}");
    assert_masked(&body, &body);
}

#[test]
fn other_shifts_are_unchanged() {
    let wide = "local.get 0 i64.extend_i32_u i64.const 2 i64.shl i32.wrap_i64";
    for body in [wide, "local.get 0 local.get 1 i32.shr_u", "local.get 0 local.get 1 i32.rotl"] {
        assert_masked(body, body);
    }
}

#[test]
fn each_shift_of_a_body_is_masked() {
    let shift = |shift: &str| format!("local.get 0 i32.const 1 {shift}");
    let twice = |amount: &str, outer: &str| format!("local.get 1 {amount} {outer} {amount} i32.add");
    let masked = mask(&module(&twice(&shift("i32.shl"), "i32.shl"))).expect("a masked module");
    assert_eq!(masked.shifts, 3);
    assert_eq!(masked.module, module(&twice(&shift(MASKED), MASKED)));
}

#[test]
fn other_sections_keep_their_bytes() {
    let fields = r#"(import "env" "log" (func $log (param i32))) (global $count (mut i32) (i32.const 7))
        (table 1 funcref) (elem (i32.const 0) $log) (data (i32.const 16) "a\00b")
        (@custom "callbound" (before first) "{\"version\":\"0\"}") (@custom "producers" "\00")"#;
    let masked =
        mask(&module_with("local.get 0 local.get 1 i32.shl", fields)).expect("a masked module").module;
    assert_eq!(masked, module_with(&format!("local.get 0 local.get 1 {MASKED}"), fields));
    assert_eq!(callbound::version::stamp_of(&masked), Some(r#"{"version":"0"}"#));
}

#[test]
fn unreadable_module_is_refused() {
    let refusal = |bytes: &[u8]| mask(bytes).err().map(|error| error.to_string()).expect("a refusal");
    let whole = module("local.get 0 local.get 1 i32.shl");
    assert_eq!(refusal(b"{}"), "not a WebAssembly module");
    let cut = refusal(&whole[..whole.len() - 2]);
    assert!(cut.starts_with("unreadable WebAssembly module: "), "{cut}");
    let component = wat::parse_str("(component)").expect("a component");
    assert_eq!(refusal(&component), "a WebAssembly component, expected a module");
    let debug = module_with("local.get 0", r#"(@custom ".debug_line" "")"#);
    assert!(refusal(&debug).starts_with("section `.debug_line` has offsets into the code"));
}

#[test]
fn results_are_those_of_the_unmasked_module() {
    let engine = Engine::default();
    let numbers = || (0..34).chain([64, 0x7fff, 0x4000_0004, i32::MAX, i32::MIN, -1, -31]);
    let bodies = [
        "local.get 0 local.get 1 i32.shl",
        "local.get 0 i32.const 3 i32.shl",
        "local.get 0 i32.const 33 i32.shl",
        "local.get 0 (block (result i32) local.get 1) i32.shl",
        "local.get 0 i32.const 2 i32.shl i32.load8_u offset=4",
        "local.get 0 local.get 1 i32.shl local.get 1 i32.store8 local.get 0 i32.const 1 i32.shl i32.load8_u",
    ];
    for body in bodies {
        let masked = mask(&module(body)).expect("a masked module").module;
        let (mut plain, mut masked) = (function(&engine, &module(body)), function(&engine, &masked));
        for (first, second) in numbers().flat_map(|first| numbers().map(move |second| (first, second))) {
            assert_eq!(masked(first, second), plain(first, second), "{body} of {first} and {second}");
        }
    }
}

/// Returns the function of a module; a trap is `None`.
fn function(engine: &Engine, module: &[u8]) -> impl FnMut(i32, i32) -> Option<i32> + use<> {
    let module = Module::new(engine, module).expect("a valid module");
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
    let shift = instance.get_typed_func::<(i32, i32), i32>(&mut store, "shift").expect("the function");
    move |first, second| shift.call(&mut store, (first, second)).ok()
}
