//! The part of Python's pickle language that a state dict is written in, read as data.
//!
//! A pickle is a program for a stack machine, and in Python it may call anything. Here the machine knows four things that may
//! be called, all of which make plain data: an empty `OrderedDict`, a tensor, a parameter, and a reference to a storage. It
//! knows no other name, so there is nothing that a hostile file could run.

use std::collections::HashMap;
use std::rc::Rc;

use candle_core::DType;

use super::RANK_CAP;

/// The most values of a pickle, and the most that it may remember. A tensor of a state dict takes about thirty.
const VALUE_CAP: usize = 1 << 18;

/// Why a pickle was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It asks for something that is no part of a state dict.
    Forbidden(String),
    /// It is not a pickle of tensors.
    Malformed(String),
}

type Result<T> = std::result::Result<T, Fault>;

fn malformed<T>(reason: impl Into<String>) -> Result<T> {
    Err(Fault::Malformed(reason.into()))
}

/// A place in the [`Heap`].
pub(super) type Id = usize;

/// A value of Python's.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Box<StoredTensor>),
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// The type of a storage's elements; `None` for one that candle has not.
    Storage(Option<DType>),
}

/// A reference to the elements of one or more tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) dtype: Option<DType>,
    /// The name of the archive's entry.
    pub(super) key: Rc<str>,
    /// How many elements.
    pub(super) len: usize,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredTensor {
    pub(super) storage: Rc<Storage>,
    pub(super) offset: usize,
    pub(super) size: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

impl Object {
    /// The kind of value, in Python's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool => "bool",
            Object::Int(_) => "int",
            Object::Float => "float",
            Object::Text(_) => "str",
            Object::Tuple(_) => "tuple",
            Object::List(_) => "list",
            Object::Dict(_) => "dict",
            Object::Global(_) => "type",
            Object::Storage(_) => "storage",
            Object::Tensor(_) => "tensor",
        }
    }
}

/// Every value of a pickle. Values refer to each other by place: they may be shared or in a circle without harm. What a few bytes
/// may call for again and again is shared too, or small: a pickle cannot multiply its own bytes in memory.
#[derive(Debug, Default)]
pub(super) struct Heap(Vec<Object>);

impl Heap {
    fn add(&mut self, object: Object) -> Result<Id> {
        if self.0.len() >= VALUE_CAP {
            return malformed(format!("it has more than {VALUE_CAP} values"));
        }
        self.0.push(object);
        Ok(self.0.len() - 1)
    }

    pub(super) fn get(&self, id: Id) -> Result<&Object> {
        match self.0.get(id) {
            Some(object) => Ok(object),
            None => malformed("it refers to a value that there is not"),
        }
    }

    fn tuple(&self, id: Id) -> Result<&[Id]> {
        match self.get(id)? {
            Object::Tuple(items) => Ok(items),
            other => malformed(format!("it has a {} for a tuple", other.kind())),
        }
    }

    fn text(&self, id: Id) -> Result<&Rc<str>> {
        match self.get(id)? {
            Object::Text(text) => Ok(text),
            other => malformed(format!("it has a {} for a str", other.kind())),
        }
    }

    fn index(&self, id: Id) -> Result<usize> {
        match self.get(id)? {
            Object::Int(value) => {
                usize::try_from(*value).or_else(|_| malformed(format!("it has {value} for a size or place")))
            }
            other => malformed(format!("it has a {} for an int", other.kind())),
        }
    }

    /// The sizes or the strides of a tensor.
    fn indices(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.tuple(id)?;
        if items.len() > RANK_CAP {
            let axes = items.len();
            return malformed(format!("it has a tensor of {axes} axes, more than {RANK_CAP}"));
        }
        items.iter().map(|id| self.index(*id)).collect()
    }
}

/// Runs a pickle and returns its value.
pub(super) fn load(bytes: &[u8]) -> Result<(Heap, Id)> {
    let mut machine = Machine {
        rest: bytes,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while !machine.step()? {}
    let value = machine.pop()?;
    Ok((machine.heap, value))
}

struct Machine<'a> {
    rest: &'a [u8],
    heap: Heap,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; whether it was the last.
    fn step(&mut self) -> Result<bool> {
        let [opcode] = self.array()?;
        match opcode {
            b'.' => return Ok(true),
            // PROTO and FRAME say nothing of the values.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Object::None)?,
            0x88 | 0x89 => self.push(Object::Bool)?,
            b'K' => {
                let [value] = self.array()?;
                self.push(Object::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                self.array::<8>()?;
                self.push(Object::Float)?;
            }
            0x8c => {
                let [len] = self.array()?;
                self.string(len.into())?;
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.string(len.into())?;
            }
            b')' => self.push(Object::Tuple(Vec::new()))?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))?;
            }
            b']' => self.push(Object::List(Vec::new()))?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let [place] = self.array()?;
                self.memoize(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.memoize(place)?;
            }
            0x94 => {
                let place = u32::try_from(self.memo.len()).or_else(|_| malformed("it remembers too much"))?;
                self.memoize(place)?;
            }
            b'h' => {
                let [place] = self.array()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let [module, name] = [module, name].map(|id| self.heap.text(id).cloned());
                self.global(&module?, &name?)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => {
                return malformed(format!(
                    "it has the instruction {other:#04x}, which no state dict needs"
                ));
            }
        }
        Ok(false)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => malformed("its pickle is cut off"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().or_else(|_| malformed("its pickle is cut off"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let Some(len) = self.rest.iter().position(|byte| *byte == b'\n') else {
            return malformed("its pickle is cut off");
        };
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).or_else(|_| malformed("it has a name that is not UTF-8"))
    }

    fn string(&mut self, len: u64) -> Result<()> {
        let len = usize::try_from(len).or_else(|_| malformed("its pickle is cut off"))?;
        let text = std::str::from_utf8(self.take(len)?).or_else(|_| malformed("it has a str that is not UTF-8"))?;
        self.push(Object::Text(text.into()))?;
        Ok(())
    }

    /// An integer of up to eight bytes, little-endian two's complement.
    fn long(&mut self) -> Result<()> {
        let [len] = self.array()?;
        let digits = self.take(len.into())?;
        if digits.len() > 8 {
            return malformed("it has an int of more than 64 bits");
        }
        let negative = digits.last().is_some_and(|top| top & 0x80 != 0);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        self.push(Object::Int(i64::from_le_bytes(bytes)))?;
        Ok(())
    }

    fn push(&mut self, object: Object) -> Result<()> {
        let id = self.heap.add(object)?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top of the stack, but nothing from below the last mark.
    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => malformed("its pickle takes from an empty stack"),
        }
    }

    fn top(&mut self) -> Result<Id> {
        match self.stack.last() {
            Some(id) => Ok(*id),
            None => malformed("its pickle takes from an empty stack"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => malformed("its pickle has no mark to go back to"),
        }
    }

    fn tuple_of(&mut self, len: usize) -> Result<()> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        self.push(Object::Tuple(items))?;
        Ok(())
    }

    fn top_object(&mut self) -> Result<&mut Object> {
        let id = self.top()?;
        match self.heap.0.get_mut(id) {
            Some(object) => Ok(object),
            None => malformed("it refers to a value that there is not"),
        }
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<()> {
        match self.top_object()? {
            Object::List(list) => list.append(&mut items),
            other => return malformed(format!("it appends to a {}", other.kind())),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return malformed("it has a key without a value");
        };
        match self.top_object()? {
            Object::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            other => return malformed(format!("it sets items of a {}", other.kind())),
        }
        Ok(())
    }

    fn memoize(&mut self, place: u32) -> Result<()> {
        let id = self.top()?;
        if self.memo.len() >= VALUE_CAP {
            return malformed(format!("it remembers more than {VALUE_CAP} values"));
        }
        self.memo.insert(place, id);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        match self.memo.get(&place) {
            Some(id) => self.stack.push(*id),
            None => return malformed("it recalls what it has not remembered"),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::Storage(Some(DType::F32)),
            ("torch", "DoubleStorage") => Global::Storage(Some(DType::F64)),
            ("torch", "HalfStorage") => Global::Storage(Some(DType::F16)),
            ("torch", "BFloat16Storage") => Global::Storage(Some(DType::BF16)),
            ("torch", "LongStorage") => Global::Storage(Some(DType::I64)),
            ("torch", "IntStorage") => Global::Storage(Some(DType::I32)),
            ("torch", "ShortStorage") => Global::Storage(Some(DType::I16)),
            ("torch", "ByteStorage") => Global::Storage(Some(DType::U8)),
            ("torch", "CharStorage" | "BoolStorage" | "ComplexFloatStorage" | "ComplexDoubleStorage") => {
                Global::Storage(None)
            }
            _ => return Err(Fault::Forbidden(format!("{module}.{name}"))),
        };
        self.push(Object::Global(global))?;
        Ok(())
    }

    /// `('storage', type, key, device, length)`; the device is where it was, and says nothing of the values.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let [tag, of, key, _device, len] = *self.heap.tuple(id)? else {
            return malformed("it refers to a storage in another form than torch's");
        };
        let (tag, key, len) = (self.heap.text(tag)?, self.heap.text(key)?, self.heap.index(len)?);
        let Object::Global(Global::Storage(dtype)) = *self.heap.get(of)? else {
            return malformed("it has a storage without a type");
        };
        if &**tag != "storage" {
            return malformed(format!("it refers to a {tag:?} outside the pickle"));
        }
        let key = Rc::clone(key);
        self.push(Object::Storage(Rc::new(Storage { dtype, key, len })))?;
        Ok(())
    }

    /// Calls one of the four.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let arguments = self.heap.tuple(arguments)?;
        match (self.heap.get(callable)?, arguments) {
            (Object::Global(Global::OrderedDict), []) => self.push(Object::Dict(Vec::new()))?,
            // Storage, offset, size, stride, whether it needs a gradient, hooks, and of late metadata.
            (Object::Global(Global::RebuildTensor), &[storage, offset, size, stride, _, _, ..]) => {
                let Object::Storage(storage) = self.heap.get(storage)? else {
                    return malformed("it has a tensor without a storage");
                };
                let tensor = StoredTensor {
                    storage: Rc::clone(storage),
                    offset: self.heap.index(offset)?,
                    size: self.heap.indices(size)?,
                    stride: self.heap.indices(stride)?,
                };
                self.push(Object::Tensor(Box::new(tensor)))?;
            }
            // The tensor, whether it needs a gradient, hooks.
            (Object::Global(Global::RebuildParameter), &[tensor, _, _]) => self.stack.push(tensor),
            (Object::Global(global), _) => {
                return malformed(format!("it calls {global:?} with other arguments than torch's"));
            }
            (other, _) => return malformed(format!("it calls a {}", other.kind())),
        }
        Ok(())
    }

    /// Attributes of a dict: torch keeps the versions of a model's modules there.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.top_object()? {
            Object::Dict(_) => Ok(()),
            other => malformed(format!("it sets attributes of a {}", other.kind())),
        }
    }
}
