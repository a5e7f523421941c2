//! Numbers. Whole ones wrap where they overflow, as Go's do.

use gotmpl::Value;

use super::{ANY, Entry, bounded, real, whole};

pub(super) const FUNCTIONS: &[Entry] = &[
    ("add", 0, ANY, |args| Ok(Value::Int(args.iter().map(whole).fold(0, i64::wrapping_add)))),
    ("add1", 1, 1, |args| Ok(Value::Int(whole(&args[0]).wrapping_add(1)))),
    ("sub", 2, 2, |args| Ok(Value::Int(whole(&args[0]).wrapping_sub(whole(&args[1]))))),
    ("mul", 1, ANY, |args| Ok(Value::Int(args.iter().map(whole).fold(1, i64::wrapping_mul)))),
    ("div", 2, 2, |args| divided(args, i64::checked_div)),
    ("mod", 2, 2, |args| divided(args, i64::checked_rem)),
    ("max", 1, ANY, |args| Ok(Value::Int(args.iter().map(whole).max().unwrap_or(0)))),
    ("biggest", 1, ANY, |args| Ok(Value::Int(args.iter().map(whole).max().unwrap_or(0)))),
    ("min", 1, ANY, |args| Ok(Value::Int(args.iter().map(whole).min().unwrap_or(0)))),
    ("addf", 0, ANY, |args| Ok(Value::Float(args.iter().map(real).sum()))),
    ("subf", 1, ANY, |args| {
        Ok(Value::Float(args.iter().skip(1).map(real).fold(real(&args[0]), |left, right| left - right)))
    }),
    ("mulf", 1, ANY, |args| Ok(Value::Float(args.iter().map(real).product()))),
    ("divf", 1, ANY, |args| {
        Ok(Value::Float(args.iter().skip(1).map(real).fold(real(&args[0]), |left, right| left / right)))
    }),
    ("floor", 1, 1, |args| Ok(Value::Float(real(&args[0]).floor()))),
    ("ceil", 1, 1, |args| Ok(Value::Float(real(&args[0]).ceil()))),
    ("round", 2, 2, |args| {
        let places = 10f64.powi(i32::try_from(whole(&args[1]).clamp(-300, 300)).unwrap_or(0));
        Ok(Value::Float((real(&args[0]) * places).round() / places))
    }),
    ("int", 1, 1, |args| Ok(Value::Int(whole(&args[0])))),
    ("int64", 1, 1, |args| Ok(Value::Int(whole(&args[0])))),
    ("atoi", 1, 1, |args| Ok(Value::Int(whole(&args[0])))),
    ("float64", 1, 1, |args| Ok(Value::Float(real(&args[0])))),
    ("until", 1, 1, |args| {
        let end = i64::try_from(bounded(&args[0])?.min(100_000)).unwrap_or(0);
        Ok(Value::List((0..end).map(Value::Int).collect()))
    }),
];

fn divided(args: &[Value], divide: fn(i64, i64) -> Option<i64>) -> Result<Value, String> {
    let (left, right) = (whole(&args[0]), whole(&args[1]));
    divide(left, right).map(Value::Int).ok_or_else(|| format!("{left} cannot be divided by {right}"))
}
