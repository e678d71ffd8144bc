//! Pickles and archives that torch does not write: each is refused, and says why.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// An archive with this pickle and a storage `0` of four floats.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let floats: Vec<u8> = [1f32, 2., 3., 4.].into_iter().flat_map(f32::to_le_bytes).collect();
    for (name, bytes) in [
        ("a/data.pkl", pickle),
        ("a/data/0", &floats),
        ("a/byteorder", b"little"),
    ] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn read(archive: Vec<u8>) -> Result<StateDict> {
    read_pth(Cursor::new(archive), Path::new("w.pth"))
}

fn refused(pickle: &[u8], reason: &str) {
    let error = read(archive(pickle)).unwrap_err().to_string();
    assert!(error.contains("w.pth") && error.contains(reason), "{error}");
}

/// A name, the storage's type and length, then offset, sizes and strides.
type View<'a> = (&'a str, &'a str, u8, u8, &'a [u8], &'a [u8]);

/// `{name: tensor}` as torch writes it.
fn dict(tensors: &[View<'_>]) -> Vec<u8> {
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let tuple = |items: &[u8]| {
        let items = items.iter().flat_map(|item| [b'K', *item]);
        [b"(".to_vec(), items.collect(), b"t".to_vec()].concat()
    };
    let mut out = b"\x80\x02}(".to_vec();
    for (name, storage, len, offset, size, stride) in tensors {
        out.extend(text(name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(text("storage"));
        out.extend(format!("ctorch\n{storage}\n").bytes());
        out.extend([text("0"), text("cpu"), vec![b'K', *len]].concat());
        out.extend(b"tQ");
        out.extend([vec![b'K', *offset], tuple(size), tuple(stride)].concat());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

#[test]
fn a_plain_dict_of_tensors_is_read() {
    let dict = read(archive(&dict(&[
        ("a", "FloatStorage", 4, 0, &[2, 2], &[2, 1]),
        ("b", "FloatStorage", 4, 1, &[2], &[2]),
    ])));
    let dict = dict.unwrap();
    assert_eq!(dict["a"].to_vec2::<f32>().unwrap(), [[1., 2.], [3., 4.]]);
    assert_eq!(dict["b"].to_vec1::<f32>().unwrap(), [2., 4.]);
}

#[test]
fn a_call_of_another_function_is_refused_by_name_and_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    let command = format!("touch {}", witness.display());
    for (global, name) in [
        (b"cos\nsystem\n".as_slice(), "os.system"),
        (b"cposix\nsystem\n", "posix.system"),
        (b"cbuiltins\neval\n", "builtins.eval"),
        (b"ctorch\nload\n", "torch.load"),
        (b"\x8c\x02os\x8c\x06system\x93", "os.system"),
    ] {
        let argument = [
            b"X".as_slice(),
            &(command.len() as u32).to_le_bytes(),
            command.as_bytes(),
        ]
        .concat();
        let pickle = [b"\x80\x02".to_vec(), global.to_vec(), argument, b"\x85R.".to_vec()].concat();
        let error = read(archive(&pickle)).unwrap_err();
        assert!(
            matches!(&error, Error::ForbiddenGlobal { global, .. } if global == name),
            "{error}"
        );
    }
    assert!(!witness.exists());
}

#[test]
fn every_tensor_that_cannot_be_read_is_listed() {
    let pickle = dict(&[
        ("good", "FloatStorage", 4, 0, &[4], &[1]),
        ("long", "FloatStorage", 4, 0, &[5], &[1]),
        ("far", "FloatStorage", 4, 3, &[2], &[1]),
        ("strided", "FloatStorage", 4, 0, &[2, 2], &[3, 1]),
        ("short storage", "FloatStorage", 5, 0, &[4], &[1]),
        ("other type", "DoubleStorage", 4, 0, &[4], &[1]),
        ("complex", "ComplexFloatStorage", 2, 0, &[2], &[1]),
        ("ranks", "FloatStorage", 4, 0, &[2, 2], &[1]),
        ("huge", "FloatStorage", 4, 0, &[255, 255, 255], &[0, 0, 0]),
        ("overflow", "FloatStorage", 4, 0, &[255; 8], &[0; 8]),
    ]);
    let Err(Error::UnreadableTensors { faults, .. }) = read(archive(&pickle)) else {
        panic!("must be refused")
    };
    let names: Vec<&str> = faults.iter().map(|(name, _)| name.as_str()).collect();
    let want = [
        "complex",
        "far",
        "huge",
        "long",
        "other type",
        "overflow",
        "ranks",
        "short storage",
        "strided",
    ];
    assert_eq!(names, want);
}

/// An int of up to eight bytes.
fn long(value: i64) -> Vec<u8> {
    [vec![0x8a, 8], value.to_le_bytes().to_vec()].concat()
}

#[test]
fn sizes_beyond_any_memory_are_refused_also_of_a_tensor_without_elements() {
    let pickle = dict(&[("a", "FloatStorage", 4, 0, &[7, 7, 7], &[7, 7, 7])]);
    let sizes = [b'K', 7].repeat(3);
    let huge = [vec![b'K', 0], long(1 << 40), long(1 << 40)].concat();
    let strides = [vec![b'K', 1], long(1 << 40), vec![b'K', 1]].concat();
    let mut parts = Vec::new();
    let mut rest = pickle.as_slice();
    for replacement in [huge, strides] {
        let at = rest.windows(sizes.len()).position(|window| window == sizes).unwrap();
        parts.extend([rest[..at].to_vec(), replacement]);
        rest = &rest[at + sizes.len()..];
    }
    parts.push(rest.to_vec());
    let Err(Error::UnreadableTensors { faults, .. }) = read(archive(&parts.concat())) else {
        panic!("must be refused")
    };
    assert_eq!(faults.len(), 1);
    assert!(faults[0].1.contains("[0, 1099511627776, 1099511627776]"), "{faults:?}");
    let empty = read(archive(&dict(&[("a", "FloatStorage", 4, 0, &[0, 3], &[3, 1])]))).unwrap();
    assert_eq!(empty["a"].dims(), [0, 3]);
}

#[test]
fn a_pickle_cannot_multiply_its_own_bytes_in_memory() {
    // A tuple of ten thousand sizes, of which each call would make a copy.
    let sizes = [b"(".to_vec(), b"K\x01".repeat(10_000), b"t".to_vec()].concat();
    let head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00(";
    let storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ";
    let arguments = [storage.as_slice(), b"K\x00", &sizes, b"q\x02h\x02\x89NtR"].concat();
    refused(&[head.as_slice(), &arguments, b"."].concat(), "10000 axes");
    // A value, or a place in the memo, for each byte.
    refused(&[b"\x80\x02", b"N".repeat(300_000).as_slice(), b"."].concat(), "values");
    let remembered = [b"\x80\x02N", b"\x94".repeat(300_000).as_slice(), b"."].concat();
    refused(&remembered, "remembers more");
    // References to one storage share its name, however long.
    let tuple = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tq\x00Q";
    let (heap, _) = pickle::load(&[tuple.as_slice(), b"h\x00Q."].concat()).unwrap();
    let keys: Vec<_> = (0..)
        .map_while(|id| heap.get(id).ok())
        .filter_map(|object| match object {
            Object::Storage(storage) => Some(storage.key.as_ptr()),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn views_that_repeat_a_storage_too_often_are_refused() {
    let tensors: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
    let views: Vec<_> = tensors
        .iter()
        .map(|name| {
            (
                name.as_str(),
                "FloatStorage",
                4,
                0,
                [200u8].as_slice(),
                [0u8].as_slice(),
            )
        })
        .collect();
    let Err(Error::UnreadableTensors { faults, .. }) = read(archive(&dict(&views))) else {
        panic!("must be refused")
    };
    assert!(faults.iter().all(|(_, fault)| fault.contains("larger than the file")));
}

#[test]
fn what_is_no_state_dict_says_what_it_is() {
    for (pickle, reason) in [
        (b"\x80\x02K\x01.".as_slice(), "it holds a int"),
        (b"\x80\x02}K\x01K\x02s.", "keys are a int"),
        (
            b"\x80\x02}X\x05\x00\x00\x00epochK\x02s.",
            "\"epoch\" is a int, not a tensor",
        ),
        (
            b"\x80\x02}X\x05\x00\x00\x00model}s.",
            "\"model\" is a dict, not a tensor",
        ),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls"),
        (b"\x80\x02K\x01)R.", "calls a int"),
        (b"\x80\x02K\x01}b.", "attributes of a int"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "other arguments"),
        (b"\x80\x02h\x07.", "not remembered"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02N(\x85.", "empty stack"),
        (b"\x80\x02(0.", "0x30"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "cut off"),
        (b"\x80\x02\x8a\x09123456789.", "more than 64 bits"),
        (b"", "cut off"),
    ] {
        refused(pickle, reason);
    }
}

#[test]
fn weights_within_a_training_checkpoint_are_pointed_at() {
    let inner = dict(&[("a", "FloatStorage", 4, 0, &[4], &[1])]);
    // {"epoch": 3, "model": {"a": tensor}}
    let pickle = [
        b"\x80\x02}(X\x05\x00\x00\x00epochK\x03X\x05\x00\x00\x00model".as_slice(),
        &inner[2..inner.len() - 1],
        b"u.",
    ]
    .concat();
    refused(&pickle, "its state dict lies under \"model\"");
}

#[test]
fn a_pickle_cut_anywhere_is_refused() {
    let pickle = dict(&[("a", "FloatStorage", 4, 0, &[2, 2], &[2, 1])]);
    for end in 0..pickle.len() {
        assert!(read(archive(&pickle[..end])).is_err(), "cut at {end}");
    }
}

#[test]
fn values_in_a_circle_and_deep_nests_do_no_harm() {
    // A list that holds itself, and one in one in one, ten thousand deep.
    refused(b"\x80\x02]q\x00h\x00a.", "it holds a list");
    let deep = [
        b"\x80\x02".to_vec(),
        b"]".repeat(10_000),
        b"a".repeat(9_999),
        b".".to_vec(),
    ]
    .concat();
    refused(&deep, "it holds a list");
}

#[test]
fn archives_of_other_forms_are_refused() {
    let write = |entries: &[(&str, &[u8])]| {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            zip.start_file(*name, stored).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    let good = dict(&[("a", "FloatStorage", 4, 0, &[4], &[1])]);
    for (entries, reason) in [
        (vec![], "0 files called data.pkl"),
        (vec![("data.pkl", good.as_slice())], "0 files called data.pkl"),
        (
            vec![("a/data.pkl", good.as_slice()), ("b/data.pkl", &good)],
            "2 files called data.pkl",
        ),
        (vec![("a/data.pkl", good.as_slice())], "a: data/0"),
        (
            vec![("a/data.pkl", good.as_slice()), ("a/byteorder", b"big")],
            "little-endian",
        ),
        (
            vec![("a/data.pkl", vec![b'N'; PICKLE_CAP as usize + 1].as_slice())],
            "more than",
        ),
    ] {
        let error = read(write(&entries)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
