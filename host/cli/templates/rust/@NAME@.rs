//! The plugin @NAME@, in Rust against bulkhead's C ABI (bulkhead/plugin.h), with the standard library alone.
//! The methods come first; what speaks C and MessagePack is below them and stays as it is.

fn greet(arguments: &[Value]) -> Result<Value, String> {
    match arguments {
        [Value::Str(name)] => Ok(Value::Str(format!("Hello, {name}!"))),
        _ => Err("greet: takes 1 argument: str name".into()),
    }
}

fn sum(arguments: &[Value]) -> Result<Value, String> {
    match arguments {
        [Value::Int(a), Value::Int(b)] => {
            a.checked_add(*b).map(Value::Int).ok_or_else(|| "sum: the result is no 64-bit integer".into())
        }
        _ => Err("sum: takes 2 arguments: int a, int b".into()),
    }
}

const METHODS: [Declared; 2] = [
    Declared { name: "greet\0", signature: "(str name) -> str\0", doc: "A greeting\0", run: greet },
    Declared { name: "sum\0", signature: "(int a, int b) -> int\0", doc: "The sum\0", run: sum },
];

/// Lines `key=value`, each with a zero byte at its end. "request=read:/usr/share/zoneinfo" asks for a grant.
#[link_section = "bulkhead_manifest"]
#[used]
static MANIFEST: [u8; MANIFEST_TEXT.len()] = bytes_of(MANIFEST_TEXT);
const MANIFEST_TEXT: &str =
    "abi=1\0id=@NAME@\0version=0.1.0\0license=MIT\0description=Says what @NAME@ is for\0";

const fn bytes_of<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut at = 0;
    while at < SIZE {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

// --- MessagePack -------------------------------------------------------------------------------------------------------

/// The kinds of values that this plugin knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

const DEPTH_LIMIT: usize = 64;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        if count > self.0.len() {
            return None;
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.bytes(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn size(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_LIMIT {
            return None;
        }
        let head = self.number(1)? as u8;
        Some(match head {
            0x00..=0x7f => Value::Int(i64::from(head)),
            0xe0..=0xff => Value::Int(i64::from(head as i8)),
            0x80..=0x8f => self.map(usize::from(head & 0x0f), depth)?,
            0x90..=0x9f => self.array(usize::from(head & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(head & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(head == 0xc3),
            0xc4..=0xc6 => {
                let size = self.size(1 << (head - 0xc4))?;
                Value::Bin(self.bytes(size)?.to_vec())
            }
            0xca => Value::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Value::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Int(i64::try_from(self.number(1 << (head - 0xcc))?).ok()?),
            0xd0 => Value::Int(i64::from(self.number(1)? as i8)),
            0xd1 => Value::Int(i64::from(self.number(2)? as i16)),
            0xd2 => Value::Int(i64::from(self.number(4)? as i32)),
            0xd3 => Value::Int(self.number(8)? as i64),
            0xd9..=0xdb => {
                let size = self.size(1 << (head - 0xd9))?;
                self.text(size)?
            }
            0xdc | 0xdd => {
                let size = self.size(2 << (head - 0xdc))?;
                self.array(size, depth)?
            }
            0xde | 0xdf => {
                let size = self.size(2 << (head - 0xde))?;
                self.map(size, depth)?
            }
            _ => return None, // extension types
        })
    }

    fn text(&mut self, size: usize) -> Option<Value> {
        Some(Value::Str(String::from_utf8(self.bytes(size)?.to_vec()).ok()?))
    }

    fn array(&mut self, size: usize, depth: usize) -> Option<Value> {
        (0..size).map(|_| self.value(depth + 1)).collect::<Option<_>>().map(Value::Array)
    }

    fn map(&mut self, size: usize, depth: usize) -> Option<Value> {
        (0..size)
            .map(|_| Some((self.value(depth + 1)?, self.value(depth + 1)?)))
            .collect::<Option<_>>()
            .map(Value::Map)
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    fn head(out: &mut Vec<u8>, kind: u8, size: usize) {
        out.push(kind);
        out.extend_from_slice(&(size as u32).to_be_bytes());
    }
    match value {
        Value::Nil => out.push(0xc0),
        Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Int(value) => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Float(value) => {
            out.push(0xcb);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Str(text) => {
            head(out, 0xdb, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bin(bytes) => {
            head(out, 0xc6, bytes.len());
            out.extend_from_slice(bytes);
        }
        Value::Array(values) => {
            head(out, 0xdd, values.len());
            values.iter().for_each(|each| write(out, each));
        }
        Value::Map(pairs) => {
            head(out, 0xdf, pairs.len());
            for (key, value) in pairs {
                write(out, key);
                write(out, value);
            }
        }
    }
}

// --- the C ABI: see bulkhead/plugin.h for what each function promises -------------------------------------------------

use std::os::raw::{c_char, c_void};

struct Declared {
    name: &'static str,
    signature: &'static str,
    doc: &'static str,
    run: fn(&[Value]) -> Result<Value, String>,
}

/// The beginning of bulkhead_host_t: all that is used here. Functions are added by get_extension(), never before these.
#[repr(C)]
pub struct Host {
    abi_version: u32,
    host_data: *mut c_void,
    reply: unsafe extern "C" fn(*const Host, *mut c_void, *const u8, usize),
    fail: unsafe extern "C" fn(*const Host, *mut c_void, *const u8, usize, *const u8, usize),
}

#[repr(C)]
pub struct Method {
    name: *const c_char,
    signature: *const c_char,
    doc: *const c_char,
    flags: u32,
    method_data: *mut c_void,
    invoke: unsafe extern "C" fn(*const Plugin, *const Method, *mut c_void, *const u8, usize),
}

#[repr(C)]
pub struct Plugin {
    plugin_data: *mut c_void,
    methods: *const Method,
    method_count: usize,
    init: Option<unsafe extern "C" fn(*const Plugin, *mut *const c_char) -> bool>,
    destroy: Option<unsafe extern "C" fn(*const Plugin)>,
    get_extension: Option<unsafe extern "C" fn(*const Plugin, *const c_char) -> *const c_void>,
}

#[repr(C)]
pub struct Entry {
    abi_version: u32,
    create: unsafe extern "C" fn(*const Host) -> *const Plugin,
}

#[no_mangle]
#[allow(non_upper_case_globals)]
pub static bulkhead_entry: Entry = Entry { abi_version: 1, create };

struct Instance {
    plugin: Plugin,
    host: *const Host,
    methods: Vec<Method>,
}

unsafe extern "C" fn create(host: *const Host) -> *const Plugin {
    std::ptr::read_volatile(MANIFEST.as_ptr()); // or the linker leaves it out
    let methods: Vec<Method> = METHODS
        .iter()
        .enumerate()
        .map(|(index, each)| Method {
            name: each.name.as_ptr().cast(),
            signature: each.signature.as_ptr().cast(),
            doc: each.doc.as_ptr().cast(),
            flags: 1, // idempotent
            method_data: index as *mut c_void,
            invoke,
        })
        .collect();
    let made = Box::into_raw(Box::new(Instance {
        plugin: Plugin {
            plugin_data: std::ptr::null_mut(),
            methods: methods.as_ptr(),
            method_count: methods.len(),
            init: None,
            destroy: Some(destroy),
            get_extension: None,
        },
        host,
        methods,
    }));
    (*made).plugin.plugin_data = made.cast();
    &(*made).plugin
}

unsafe extern "C" fn destroy(plugin: *const Plugin) {
    let instance: Box<Instance> = Box::from_raw((*plugin).plugin_data.cast());
    drop(instance.methods);
}

unsafe extern "C" fn invoke(
    plugin: *const Plugin,
    method: *const Method,
    call: *mut c_void,
    arguments: *const u8,
    size: usize,
) {
    let host = (*(*plugin).plugin_data.cast::<Instance>()).host;
    let run = METHODS[(*method).method_data as usize].run;
    let packed = std::slice::from_raw_parts(arguments, size);
    // A panic must not leave for C.
    let result = std::panic::catch_unwind(|| match Reader(packed).value(0) {
        Some(Value::Array(values)) => run(&values),
        _ => Err("the arguments have a type that this plugin does not know".into()),
    })
    .unwrap_or_else(|_| Err("the method panicked".into()));
    match result {
        Ok(value) => {
            let mut out = Vec::new();
            write(&mut out, &value);
            ((*host).reply)(host, call, out.as_ptr(), out.len());
        }
        Err(text) => ((*host).fail)(host, call, text.as_ptr(), text.len(), std::ptr::null(), 0),
    }
}
