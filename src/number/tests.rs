//! Texts that callers dial and their disguises, then the invariants of the tables.

use super::*;

fn number(text: &str) -> Number {
    Number::parse(text).unwrap_or_else(|| panic!("{text} is a canonical number"))
}

fn assert_all(expected: Dialled, texts: &[&str]) {
    for text in texts {
        assert_eq!(Dialled::read(text), expected, "{text:?}");
    }
}

#[test]
fn ordinary_numbers_are_read_and_written_back_unchanged() {
    for text in ["+15551234567", "+442079460000", "+39066982", "+4915112345678", "+861012345678"] {
        assert_eq!(Dialled::read(text), Dialled::Number(number(text)), "{text}");
        assert_eq!(number(text).to_string(), text);
    }
    assert_eq!(number("+12").to_string(), "+12", "the shortest");
    assert_eq!(number("+999999999999999").to_string(), "+999999999999999", "the longest");
}

#[test]
fn numbers_that_only_begin_like_an_emergency_code_are_ordinary() {
    // Delhi (+91 11), Sapporo (+81 11), a Chinese 110, Cologne (+49 221), Reading (+44 118).
    let begin_alike = ["+911123456789", "+81112345678", "+861104567890", "+4922112345", "+441189998199"];
    for text in begin_alike.into_iter().chain(["+19995551234", "+9112", "+112112112"]) {
        assert!(!number(text).is_emergency(), "{text}");
        assert_eq!(Dialled::read(text), Dialled::Number(number(text)), "{text}");
    }
}

#[test]
fn emergency_codes_of_any_region_are_emergency_bare_and_behind_a_plus() {
    let codes = [
        "911", "112", "999", "110", "119", "000", "111", "120", "933", "988", "15", "17", "18", "100", "108",
        "190", "10111",
    ];
    for code in codes {
        assert_all(Dialled::Emergency, &[code, &format!("+{code}")]);
    }
}

#[test]
fn an_emergency_code_behind_its_own_calling_code_is_emergency() {
    let forms = [
        "+1911", "+1933", "+1988", "+1112", "+44999", "+44112", "+86110", "+86120", "+2710111", "+61000",
        "+91108", "+81119", "+3315", "+3318", "+55190", "+49112",
    ];
    for text in forms {
        assert_all(Dialled::Emergency, &[text]);
        assert!(number(text).is_emergency(), "{text}");
    }
    assert!(!number("+4918").is_emergency(), "18 is for France, not Germany");
}

#[test]
fn nine_one_one_with_digits_behind_it_is_still_emergency_in_north_america() {
    assert_all(Dialled::Emergency, &["+19110000000", "+19115551234", "+19119999999"]);
    for neighbour in ["+19109999999", "+19120000000"] {
        assert!(!number(neighbour).is_emergency(), "{neighbour}");
    }
}

#[test]
fn disguised_emergency_codes_are_never_a_number() {
    let disguises = [
        "9-1-1",
        "9 1 1",
        "911 ",
        " 911",
        "tel:911",
        "sip:911",
        "urn:service:sos",
        "９１１",
        "٩١١",
        "0911",
        "9911",
        "911123",
        "+0911",
        "++911",
        "911;ext=1",
        "911,",
        "+1-911",
        "+1 911",
        "911\0",
        "911\n",
    ];
    assert_all(Dialled::Malformed, &disguises);
}

#[test]
fn text_that_only_normalises_to_a_number_is_malformed() {
    let loose = [
        "",
        "+",
        "+1",
        "+0123456789",
        "15551234567",
        "0015551234567",
        "01115551234567",
        "+1 5551234567",
        "+1-555-123-4567",
        "+1(555)1234567",
        "+1.555.123.4567",
        "tel:+15551234567",
        "sip:+15551234567@x",
        "+15551234567;ext=5",
        "+15551234567,,5",
        "+15551234567p5",
        "+15551234567w5",
        "*67+15551234567",
        "#31#+15551234567",
        "+1555CALLNOW",
        "+15551234567,+15557654321",
        "%2B15551234567",
        "anonymous",
        " +15551234567",
        "+15551234567 ",
        "+15551234567\n",
        "\u{feff}+15551234567",
        "+1234567890123456",
        "+00000000000000000000000000000000000001",
        "+-5551234567",
        "+1_555_123_4567",
        "+1e10",
    ];
    assert_all(Dialled::Malformed, &loose);
}

#[test]
fn only_ascii_digits_count() {
    let unicode = [
        "+١٥٥٥١٢٣٤٥٦٧",
        "+१५५५१२३४५६७",
        "+１５５５１２３４５６７",
        "＋15551234567",
        "+¹⁵⁵⁵¹²³⁴⁵⁶⁷",
        "+𝟏𝟓𝟓𝟓𝟏𝟐𝟑𝟒𝟓𝟔𝟕",
        "+1\u{200b}5551234567",
        "\u{202e}+15551234567",
        "+1555\u{ad}1234567",
        "+1\u{301}5551234567",
        "+1555123456７",
    ];
    assert_all(Dialled::Malformed, &unicode);
}

#[test]
fn premium_rate_and_shared_cost_are_recognised() {
    let premium = [
        "+19002345678",  // United States, and with it all of +1
        "+449061234567", // United Kingdom 0906
        "+448431234567", // United Kingdom 0843, shared cost
        "+39899123456",  // Italy 899
        "+39087812345",  // Italy 0878: the zero is part of the number
        "+33891123456",  // France 0891
        "+499001123456", // Germany 0900
        "+979123456789", // international premium rate
        "+80812345678",  // international shared cost
        "+881612345678", // satellites
        "+870773111632",
        "+8821300000", // international networks, in a listed range and far from one
        "+88299",
        "+883510000000094",
        "+8781012345678", // universal personal telecommunications
    ];
    for text in premium {
        assert!(number(text).is_premium(), "{text}");
    }
}

#[test]
fn ordinary_numbers_near_premium_ranges_are_not_premium() {
    let ordinary = [
        "+19001345678", // no exchange starts with 1
        "+1900234567",  // a digit short
        "+190023456789",
        "+12125550100",
        "+18005550100",
        "+449000",
        "+442079460000",
        "+447911123456",
        "+390612345678",
        "+8618912345678",
        "+80012345678", // international freephone
        "+869123456",   // the integers next to +870
        "+888123456789",
    ];
    for text in ordinary {
        assert!(!number(text).is_premium(), "{text}");
    }
}

#[test]
fn a_trunk_prefix_left_in_does_not_hide_a_premium_number() {
    for text in ["+4409061234567", "+119002345678", "+330891123456", "+360690123456"] {
        assert!(number(text).is_premium(), "{text}");
    }
    assert!(!number("+4402079460000").is_premium(), "a trunk prefix alone costs nothing extra");
}

#[test]
fn numbers_are_equal_only_when_every_digit_is() {
    let pairs = [
        ("+1555123456", "+15551234567"),     // a prefix of the other
        ("+442079460000", "+4402079460000"), // trunk 0
        ("+525512345678", "+5215512345678"), // Mexico's former mobile 1
        ("+541112345678", "+5491112345678"), // Argentina's mobile 9
        ("+39612345678", "+390612345678"),   // Italy's significant 0
    ];
    for (one, other) in pairs {
        assert_ne!(number(one), number(other), "{one} {other}");
    }
    assert_eq!(Number::parse("*"), None);
    assert_eq!(Number::parse("+1555*"), None);
}

#[test]
fn debug_and_masked_never_show_a_whole_number() {
    assert_eq!(number("+15551234567").masked(), "+1555*****67");
    assert_eq!(format!("{:?}", number("+15551234567")), "Number(+1555*****67)");
    let nested = format!("{:?}", Some(Dialled::Number(number("+442079460000"))));
    assert_eq!(nested, "Some(Number(Number(+4420******00)))");
    assert_eq!(number("+911").masked(), "+***");
    assert_eq!(number("+123456").masked(), "+****56");
    for length in 2..=MAX_DIGITS {
        let masked = number(&format!("+{}", "7".repeat(length))).masked();
        assert_eq!(masked.len(), length + 1, "{masked}");
        assert!(masked.matches('*').count() >= length.min(4), "{masked}");
        assert!(masked.matches('7').count() <= 6, "{masked}");
    }
}

#[test]
fn tables_are_sorted_as_binary_search_needs_them() {
    assert!(tables::EMERGENCY_CODES.is_sorted_by(|a, b| a < b));
    assert!(tables::EMERGENCY_NUMBERS.is_sorted_by(|a, b| a < b));
    let ranges: Vec<_> = tables::PREMIUM_RANGES.iter().map(|packed| unpack(*packed)).collect();
    assert!(ranges.iter().all(|range| !range.is_empty()));
    assert!(ranges.is_sorted_by(|one, next| one.end() < next.start()));
    assert!(size_of_val(&tables::PREMIUM_RANGES) <= 60 * 1024, "it travels in every module");
}

#[test]
fn every_edge_of_the_premium_table_answers_for_its_own_side() {
    let mut before = 0;
    for &packed in &tables::PREMIUM_RANGES {
        let (first, last) = unpack(packed).into_inner();
        assert!(Number(first).is_premium() && Number(last).is_premium(), "{first} {last}");
        assert!(before + 1 < first, "ranges that touch are one range");
        assert!(!Number(first - 1).is_premium() && !Number(last + 1).is_premium(), "{first} {last}");
        before = last;
    }
}

#[test]
fn every_emergency_entry_is_refused_in_each_form() {
    for code in tables::EMERGENCY_CODES {
        assert_all(Dialled::Emergency, &[code, &format!("+{code}")]);
    }
    for n in tables::EMERGENCY_NUMBERS {
        assert_all(Dialled::Emergency, &[&format!("+{n}")]);
    }
}

#[test]
fn the_metadata_version_is_a_version() {
    assert_eq!(metadata_version().split('.').filter(|part| part.parse::<u16>().is_ok()).count(), 3);
}
