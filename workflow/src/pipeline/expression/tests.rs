use std::sync::Arc;

use arrow::array::{BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array, StringArray};

use super::super::testing::table;
use super::*;

fn sample() -> Table {
    table(vec![
        ("i", Arc::new(Int64Array::from(vec![Some(1), Some(-2), None, Some(7)]))),
        ("f", Arc::new(Float64Array::from(vec![Some(0.5), Some(-0.0), Some(f64::NAN), None]))),
        ("s", Arc::new(Float32Array::from(vec![1.5, 2.5, 3.5, 4.5]))),
        ("t", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("")]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        // 1970-01-02, 2016-02-29, 1969-12-31
        ("d", Arc::new(Date32Array::from(vec![Some(1), Some(16_860), None, Some(-1)]))),
        ("two words", Arc::new(Int64Array::from(vec![10, 20, 30, 40]))),
    ])
}

fn shown(text: &str) -> String {
    let table = sample();
    let value = Expression::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).evaluate("where", &table);
    let value = value.unwrap_or_else(|e| panic!("{text}: {e}"));
    let row = |i| match value.is_null(i) {
        true => "_".to_string(),
        false => arrow::util::display::array_value_to_string(&value, i).unwrap(),
    };
    (0..4).map(row).collect::<Vec<_>>().join(" ")
}

#[test]
fn values_by_hand() {
    for (text, expected) in [
        ("i + 1", "2 -1 _ 8"),
        ("i * 2 - 1", "1 -5 _ 13"),
        ("2 + 3 * 4 - -1", "15 15 15 15"),
        ("(2 + 3) * 4", "20 20 20 20"),
        ("i / 2", "0.5 -1.0 _ 3.5"),
        ("i % 2", "1 0 _ 1"),
        ("-i", "-1 2 _ -7"),
        ("i + f", "1.5 -2.0 _ _"),
        ("s * 2", "3.0 5.0 7.0 9.0"),
        ("f = 0", "false true false _"),
        ("f != f", "false false true _"),
        ("f >= 0", "true true false _"),
        ("i > 0 and b", "true false _ true"),
        ("i > 0 or b", "true false _ true"),
        ("not b", "false true _ false"),
        ("b or i is null", "true false true true"),
        ("i is not null", "true true false true"),
        ("t = 'a'", "true false _ false"),
        ("t in ('a', '')", "true false _ true"),
        ("i not in (1, 7)", "false true _ false"),
        ("d < '2016-01-01'", "true false _ true"),
        ("year(d)", "1970 2016 _ 1969"),
        ("month(d) * 100 + day(d)", "102 229 _ 1231"),
        ("when(i > 5, 'big', i > 0, 'small', 'none')", "small none none big"),
        ("when(b, 1, null)", "1 _ _ 1"),
        ("when(b, i, 0.5)", "1.0 0.5 0.5 7.0"),
        ("coalesce(i, 0)", "1 -2 0 7"),
        ("coalesce(null, t, 'x')", "a b x "),
        ("min(i, 2)", "1 -2 _ 2"),
        ("max(i, 2, s)", "2.0 2.5 _ 7.0"),
        ("min(f, 1)", "0.5 -0.0 NaN _"),
        ("min(1, f)", "0.5 -0.0 NaN _"),
        ("max(f, s)", "1.5 2.5 NaN _"),
        ("max(s, f, 0)", "1.5 2.5 NaN _"),
        ("max(i, f)", "1.0 -0.0 _ _"),
        ("max(f, i)", "1.0 -0.0 _ _"),
        ("abs(i)", "1 2 _ 7"),
        ("round(s)", "2.0 2.0 4.0 4.0"),
        ("floor(s) + ceil(s)", "3.0 5.0 7.0 9.0"),
        ("sqrt(exp(log(4)))", "2.0 2.0 2.0 2.0"),
        ("int(s)", "1 2 3 4"),
        ("int(-s)", "-1 -2 -3 -4"),
        ("int(null)", "_ _ _ _"),
        ("int(-9223372036854775808.0) + 1 = -9223372036854775807", "true true true true"),
        ("-9223372036854775808", "-9223372036854775808 -9223372036854775808 -9223372036854775808 -9223372036854775808"),
        ("-9223372036854775808 + 1 = -9223372036854775807", "true true true true"),
        ("9223372036854775808.0 > 9223372036854775807.5 - 1e4", "true true true true"),
        ("when(f = f, int(f), -1)", "0 0 -1 -1"),
        ("float(b)", "1.0 0.0 _ 1.0"),
        ("\"two words\" / 10", "1.0 2.0 3.0 4.0"),
        ("1e3 + .5", "1000.5 1000.5 1000.5 1000.5"),
        ("'it''s'", "it's it's it's it's"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn a_branch_is_computed_for_the_rows_that_take_it() {
    // i is 1, -2, null and 7: 10 % (i - 1) ends a run in the first row, and 100 % (i + 2) in the second.
    for (text, expected) in [
        ("when(i != 1, 10 % (i - 1), 0)", "0 1 0 4"),
        ("when(i = 1, 0, 10 % (i - 1))", "0 1 _ 4"),
        ("when(i = 1, 0, 10 % (i - 1) = 1, 5, 6)", "0 5 6 6"),
        ("when(b, when(i > 5, 100 % (i - 6), i), when(i = -2, 3, 100 % (i + 2)))", "1 3 _ 0"),
        ("when(i < 5, i + 9223372036854775806, i)", "9223372036854775807 9223372036854775804 _ 7"),
        ("coalesce(f, 10 % (i - 1))", "0.5 -0.0 NaN 4.0"),
        ("coalesce(null, when(b, t, null), when(i = -2, 'z', null), 'x')", "a z x "),
        ("coalesce(when(i != 1, i, null), 1, 10 % 0)", "1 -2 1 7"),
        // All rows or none.
        ("when(i is null, 1, i is not null, 2, 10 % 0)", "2 2 1 2"),
        ("when(null, 10 % 0, 3)", "3 3 3 3"),
        ("when(true, i, 10 % 0)", "1 -2 _ 7"),
        // The type is that of all branches, also where all rows take one.
        ("when(i < 100 or i is null, i, 0.5) % 2", "1.0 -0.0 _ 1.0"),
        ("coalesce(-\"two words\", 0.5) % 10", "-0.0 -0.0 -0.0 -0.0"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    for text in ["when(i = 1, 10 % (i - 1), 0)", "when(10 % (i - 1) = 1, 0, 5)", "coalesce(10 % (i - 1), 0)"] {
        assert!(Expression::parse(text).unwrap().evaluate("where", &sample()).is_err(), "{text}");
    }
}

#[test]
fn a_number_that_int64_does_not_hold_is_named_by_its_row() {
    // Of its rows 2 and 3 alone, which are at 0 and 1 then.
    let some = sample().filter(&BooleanArray::from(vec![false, false, true, true])).unwrap();
    for (table, text, expected) in [
        (sample(), "int(f)", "row 2: int takes numbers within int64, found NaN; "),
        (some.clone(), "1 + int(f)", "row 2: int takes numbers within int64, found NaN; "),
        (sample(), "int(when(i = 7, -1e300, 0))", "row 3: int takes numbers within int64, found -1e300; "),
        (sample(), "when(i = 7 or f != f, int(f * 2), 0)", "row 2: int takes numbers within int64, found NaN; "),
        (some, "int(9223372036854775808.0)", "row 2: int takes numbers within int64, found 9.223372036854776e18; "),
    ] {
        let found = Expression::parse(text).unwrap().evaluate("where", &table).unwrap_err();
        assert!(matches!(found, OperatorError::NotWhole { .. }), "{text}: {found}");
        assert!(found.to_string().starts_with(expected), "{text}: {found}");
    }
    let none = sample().filter(&BooleanArray::from(vec![false; 4])).unwrap();
    assert_eq!(Expression::parse("int(1e300)").unwrap().evaluate("where", &none).unwrap().len(), 0);
}

#[test]
fn what_has_no_value_is_named_by_its_row_in_plain_words() {
    let some = sample().filter(&BooleanArray::from(vec![false, false, true, true])).unwrap();
    for (table, text, expected) in [
        (sample(), "i + 9223372036854775801", "row 3: 7 + 9223372036854775801 is beyond int64; compute with float64"),
        (some, "i * 9223372036854775807", "row 3: 7 * 9223372036854775807 is beyond int64; "),
        (sample(), "10 % (i - 1)", "row 0: 10 % 0 has no value; give such rows another, as in `when("),
        (sample(), "when(i = 7, 10 % (i - 7), 0)", "row 3: 10 % 0 has no value; "),
        (sample(), "9223372036854775807 + 1", "9223372036854775807 + 1 is beyond int64; "),
        (sample(), "-(i - 9223372036854775806)", "row 1: -(-9223372036854775808) is beyond int64; "),
        (sample(), "t < d", "'a' is compared with a date and is none; dates are written as '2016-01-31'"),
    ] {
        let found = Expression::parse(text).unwrap().evaluate("where", &table).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn mistakes_say_what_was_expected() {
    for (text, expected) in [
        ("1 +", "a value at the end"),
        ("(1", ") at the end"),
        ("1 2", "ends before 2 (character 3)"),
        ("a ? b", "no '?' (character 3)"),
        ("'open", "a closing ' for that of character 1"),
        ("sqr(1)", "did you mean \"sqrt\"?"),
        ("when(1, 2)", "when(condition, value, ..., otherwise)"),
        ("a is 3", "null before 3"),
        (
            "i < 9223372036854775808",
            "a whole number of 64 bits instead of 9223372036854775808; write 9223372036854775808.0 for a float",
        ),
        ("i = -9223372036854775809", "a whole number of 64 bits instead of 9223372036854775809; write "),
        ("i -9223372036854775808", "a whole number of 64 bits instead of 9223372036854775808; write "),
    ] {
        let found = Expression::parse(text).unwrap_err();
        assert!(found.contains(expected), "{text}: {found}");
    }
    let columns = Columns::of(&sample().schema());
    for (text, expected) in [
        ("t + 1", "+ takes numbers, found text"),
        ("i and b", "and/or takes true or false, found int64"),
        ("t > 1", "a comparison takes two values of one kind, found text and int64"),
        ("j + 1", "no column j: did you mean"),
        ("year(i)", "year takes a date, found int64"),
        ("when(b, 1, 'a')", "when takes values of one kind, found text and int64"),
        ("min(1)", "min takes 2 values or more"),
        ("null", "always null"),
        ("d < '2016-02-30'", "'2016-02-30' is compared with a date and is none; write it as '2016-01-31'"),
        ("'yesterday' = d", "'yesterday' is compared with a date and is none"),
        ("d in ('2016-01-31', '31.1.2016')", "'31.1.2016' is compared with a date and is none"),
        ("d > when(b, '2016-01-01', '2016-13-01')", "'2016-13-01' is compared with a date and is none"),
        ("coalesce(t, '') <= d", "'' is compared with a date and is none"),
    ] {
        let found = Expression::parse(text).unwrap().check("where", &columns).unwrap_err().to_string();
        assert!(found.contains(expected), "{text}: {found}");
    }
    // A text that is compared with texts may say anything.
    assert!(Expression::parse("t < '2016-02-30' and d < '2016-02-29'").unwrap().check("where", &columns).is_ok());
    assert!(Expression::parse(&"(".repeat(100_000)).is_err());
    assert!(Expression::parse(&"-".repeat(100_000)).is_err());
    let overflow = Expression::parse("i + 9223372036854775807").unwrap().evaluate("where", &sample());
    assert!(overflow.is_err());
    let smallest = table(vec![("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)])))]);
    for text in ["-n", "abs(n)", "abs(n) > 0", "abs(-9223372036854775808)", "--9223372036854775808"] {
        let found = Expression::parse(text).unwrap().evaluate("where", &smallest).unwrap_err().to_string();
        assert!(found.contains("9223372036854775808") && found.contains(" is beyond int64"), "{text}: {found}");
    }
    assert!(Expression::parse("floor(n) = ceil(n)").unwrap().evaluate("where", &smallest).is_ok());
}

#[test]
fn long_chains_are_no_deep_trees() {
    for (term, by, expected) in [
        ("i > 0", " and ", "true false _ true"),
        ("i > 5", " or ", "false false _ true"),
        ("i", " + ", "1000 -2000 _ 7000"),
        ("0", " - ", "0 0 0 0"),
        ("1", " * ", "1 1 1 1"),
    ] {
        let chain = |n: usize| vec![term; n].join(by);
        assert_eq!(shown(&chain(1000)), expected, "{by}");
        for n in [1001, 5000, 100_000] {
            let found = Expression::parse(&chain(n)).unwrap_err();
            assert!(found.contains("at most 1000 terms in a row"), "{by}: {found}");
        }
    }
    // As many in each of the parentheses.
    let terms = ["i > 0"; 1000].join(" and ");
    let nested = (0..60).fold(terms, |inner, _| format!("({inner}) and {}", ["i > 0"; 999].join(" and ")));
    assert_eq!(shown(&nested), "true false _ true");
    assert!(format!("{:?}", Expression::parse(&nested).unwrap().clone()).starts_with('('));
    // From the left, one after another.
    assert_eq!(shown("7 - 2 - 1 / 2 / 2 + 6 % 4 * 3"), "10.75 10.75 10.75 10.75");
    assert_eq!(shown("9223372036854775807 - 1 + 1 = 9223372036854775807"), "true true true true");
}
