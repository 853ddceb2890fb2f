//! What a store promises: files that are there whole or not at all, in a folder and in a bucket.

use std::fs;
use std::io::Write;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path().join("lake")).unwrap();
    (folder, store)
}

#[cfg(unix)]
#[test]
fn what_is_new_is_for_its_owner_and_what_readers_need_for_those_who_may() {
    use std::os::unix::fs::PermissionsExt;
    for (readers, file, folder) in [
        (Readers::Owner, 0o600, 0o700),
        (Readers::Group, 0o640, 0o750),
        (Readers::All, 0o644, 0o755),
    ] {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path().join("made/lake")).readable_by(readers);
        // Whatever is made first, the lake itself is for its readers.
        store.folder("state/ledger").write("key.json", b"1").unwrap();
        store.write("commits/1.json", b"1").unwrap();
        store.new_file("parts/a/b").unwrap().finish().unwrap();
        store.write("state/runs/1.json", b"1").unwrap();
        store.append("archive/acme/x").unwrap();
        store.open_to_lock("state/lock", &Steps::default()).unwrap();
        let mode = |path: &str| {
            let mode = fs::metadata(store.path(path)).unwrap().permissions().mode();
            (path.to_owned(), mode & 0o777)
        };
        let read = ["", "commits", "parts/a"].map(mode);
        assert!(read.iter().all(|(_, mode)| *mode == folder), "{read:?}");
        let read = ["commits/1.json", "parts/a/b"].map(mode);
        assert!(read.iter().all(|(_, mode)| *mode == file), "{read:?}");
        let own = ["state", "state/ledger", "state/runs", "archive", "archive/acme"].map(mode);
        assert!(own.iter().all(|(_, mode)| *mode == 0o700), "{own:?}");
        let own = ["state/ledger/key.json", "state/runs/1.json", "archive/acme/x", "state/lock"]
            .map(mode);
        assert!(own.iter().all(|(_, mode)| *mode == 0o600), "{own:?}");
    }
}

#[test]
fn a_file_that_is_not_finished_is_never_seen() {
    let (_folder, store) = store();
    let mut file = store.new_file("parts/a.parquet").unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    assert_eq!(store.list_all("parts").unwrap(), Vec::<String>::new());
}

#[test]
fn a_finished_file_says_what_it_holds() {
    let (_folder, store) = store();
    let mut file = store.new_file("parts/a").unwrap();
    file.write_all(b"whole").unwrap();
    let stored = file.finish().unwrap();
    let (bytes, blake3) = digest(store.open_file("parts/a").unwrap()).unwrap();
    assert_eq!((stored.bytes, stored.blake3), (bytes, blake3));
    assert_eq!(store.list_all("parts").unwrap(), ["parts/a"]);
}

#[test]
fn what_a_writer_that_died_left_is_replaced_by_the_next_with_the_lock() {
    let (_folder, store) = store();
    fs::write(store.path(".tmp-a.json"), b"half").unwrap();
    for text in ["one", "two"] {
        let after = Some(text.as_bytes().to_vec());
        store.update("a.json", |_| Ok::<_, Error>((after.clone(), ()))).unwrap();
    }
    assert_eq!(store.read("a.json").unwrap(), b"two"[..]);
    // The file and its lock.
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 2);
}

#[test]
fn what_was_never_finished_beside_is_removed_and_nothing_below() {
    let (_folder, store) = store();
    for path in [".tmp-a", "state/.tmp-b", "state/c"] {
        store.create_folder("state").unwrap();
        fs::write(store.path(path), b"half").unwrap();
    }
    store.remove_unfinished_beside("").unwrap();
    assert!(!store.exists(".tmp-a").unwrap() && store.exists("state/.tmp-b").unwrap());
    store.remove_unfinished("").unwrap();
    assert_eq!(store.list_all("state").unwrap(), ["state/c"]);
    assert!(!store.exists("state/.tmp-b").unwrap());
}

#[test]
fn only_the_first_to_a_name_gets_it() {
    let (_folder, store) = store();
    assert!(store.write_if_absent("commits/1.json", b"one").unwrap());
    assert!(!store.write_if_absent("commits/1.json", b"two").unwrap());
    assert_eq!(store.read("commits/1.json").unwrap(), "one");
    assert_eq!(store.list("commits").unwrap(), ["1.json"]);
}

#[test]
fn a_pointer_is_replaced_in_one_step() {
    let (_folder, store) = store();
    store.point("latest", "snapshots/1").unwrap();
    store.point("latest", "snapshots/2").unwrap();
    assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/2"));
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let (_folder, store) = store();
    for text in ["one", "two"] {
        let mut appender = store.append("archive/x").unwrap();
        appender.write(text.as_bytes()).unwrap();
        appender.sync().unwrap();
    }
    assert_eq!(store.read("archive/x").unwrap(), "onetwo");
}

#[test]
fn a_folder_that_is_not_finished_is_hidden_until_it_is_renamed() {
    let (_folder, store) = store();
    let staged = Store::unfinished("snapshots", "1");
    store.create_folder(&format!("{staged}/leads")).unwrap();
    store.write(&format!("{staged}/leads/a"), b"a").unwrap();
    assert_eq!(store.list("snapshots").unwrap(), Vec::<String>::new());
    store.rename(&staged, "snapshots/1").unwrap();
    assert_eq!(store.list_all("snapshots").unwrap(), ["snapshots/1/leads/a"]);
}

#[test]
fn what_was_never_finished_goes_and_what_was_stays() {
    let (_folder, store) = store();
    store.write("parts/a/b", b"whole").unwrap();
    fs::write(store.path(&Store::unfinished("parts/a", "x")), b"half").unwrap();
    store.create_folder(&Store::unfinished("parts", "folder/inside")).unwrap();
    store.remove_unfinished("parts").unwrap();
    store.remove_unfinished("not there").unwrap();
    let left = |folder: &str| fs::read_dir(store.path(folder)).unwrap().count();
    assert_eq!((left("parts"), left("parts/a")), (1, 1));
}

/// A folder and a bucket, each empty.
fn both() -> (tempfile::TempDir, [Store; 2]) {
    let (folder, store) = store();
    (folder, [store, Store::in_memory()])
}

#[test]
fn a_bucket_does_what_a_folder_does() {
    let (_folder, both) = both();
    for store in both {
        store.write("parts/a/one", b"one").unwrap();
        store.write("parts/a/one", b"once").unwrap();
        store.write("parts/b/two", b"two").unwrap();
        store.write("partsize", b"no part").unwrap();
        assert_eq!(store.list("parts").unwrap(), ["a", "b"]);
        assert_eq!(store.list("parts/a").unwrap(), ["one"]);
        assert_eq!(store.list("nothing").unwrap(), [""; 0]);
        assert_eq!(store.list_all("parts").unwrap(), ["parts/a/one", "parts/b/two"]);
        assert!(
            store.exists("parts").unwrap()
                && store.exists("parts/b/two").unwrap()
                && !store.exists("part").unwrap()
        );
        let sizes = store.sizes(&["parts/b/two", "parts/c", "parts/a/one"]).unwrap();
        assert_eq!(sizes, [Some(3), None, Some(4)]);
        assert!(store.read("parts/c").unwrap_err().is_not_found());
        assert_eq!(store.read_if_exists("parts/c").unwrap(), None);
        assert!(store.open_file("parts/c").unwrap_err().is_not_found());
        store.link("parts/a/one", "parts/a/same").unwrap();
        store.rename("parts/a", "parts/z").unwrap();
        assert_eq!(
            store.list_all("parts").unwrap(),
            ["parts/b/two", "parts/z/one", "parts/z/same"]
        );
        store.rename("parts/b/two", "parts/z/two").unwrap();
        assert_eq!(store.read("parts/z/same").unwrap(), "once");
        store.remove("parts/z/one").unwrap();
        store.remove("parts/z/one").unwrap();
        store.remove_all("parts").unwrap();
        store.remove_all("parts").unwrap();
        assert!(!store.exists("parts").unwrap() && store.exists("partsize").unwrap());
        let below = store.folder("state/ledger");
        below.write("key.json", b"1").unwrap();
        assert_eq!(store.list_all("state").unwrap(), ["state/ledger/key.json"]);
        store.point("latest", "snapshots/1").unwrap();
        assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/1"));
        assert!(store.write_if_absent("commits/1", b"one").unwrap());
        assert!(!store.write_if_absent("commits/1", b"two").unwrap());
        assert_eq!(store.read("commits/1").unwrap(), "one");
    }
}

#[test]
fn folders_are_listed_from_a_name_on() {
    let (_folder, both) = both();
    for store in both {
        let paths = ["a/04/x", "a/05-b/x", "a/05/x/y", "a/06/x", "a/beside", "b/07/x"];
        for path in paths {
            store.write(path, b"any").unwrap();
        }
        let from = |first| store.list_all_from("a", first).unwrap();
        assert_eq!(from("05"), ["a/05-b/x", "a/05/x/y", "a/06/x"]);
        assert_eq!(from("07"), [""; 0]);
        assert_eq!(from("0"), paths[..4]);
        assert_eq!(store.list_all_from("nothing", "05").unwrap(), [""; 0]);
        assert_eq!(store.list_all_from("a/beside", "05").unwrap(), [""; 0]);
    }
}

#[test]
fn a_file_that_is_changed_sees_what_stood_there() {
    let (_folder, both) = both();
    for store in both {
        for expected in 0..3_usize {
            let count = store.update("count.json", |bytes| {
                let before = bytes.map_or(0, |bytes| bytes.len());
                Ok::<_, Error>((Some(vec![b'x'; before + 1]), before))
            });
            assert_eq!(count.unwrap(), expected);
        }
        assert_eq!(store.update("count.json", |_| Ok::<_, Error>((None, 7))).unwrap(), 7);
        assert_eq!(store.read("count.json").unwrap(), "xxx");
    }
}

#[test]
fn in_a_bucket_a_change_is_made_again_where_another_came_before_it() {
    let store = Store::in_memory();
    store.write("count", b"1").unwrap();
    let mut tries = 0;
    let seen = store.update("count", |bytes| {
        tries += 1;
        if tries == 1 {
            store.write("count", b"5")?;
        }
        Ok::<_, Error>((Some(b"6".to_vec()), bytes.unwrap()))
    });
    assert_eq!((seen.unwrap(), tries), (Bytes::from("5"), 2));
    let never = store.update("count", |_| {
        store.write("count", b"5")?;
        Ok::<_, Error>((Some(b"6".to_vec()), ()))
    });
    assert!(never.unwrap_err().source.to_string().contains("keep changing"));
}

#[test]
fn a_write_to_a_bucket_that_is_sent_twice_was_the_first_all_the_same() {
    let store = Store::in_memory();
    assert!(store.write_if_absent("commits/1", b"one").unwrap());
    assert!(store.write_if_absent("commits/1", b"one").unwrap());
}

#[test]
fn what_is_appended_in_a_bucket_is_an_object_of_its_own() {
    let store = Store::in_memory();
    let mut appender = store.append("archive/x").unwrap();
    appender.write(b"one").unwrap();
    assert!(!store.exists("archive/x").unwrap());
    appender.write(b"two").unwrap();
    appender.sync().unwrap();
    assert_eq!(store.read("archive/x").unwrap(), "onetwo");
    let mut other = store.append("archive/x").unwrap();
    other.write(b"other").unwrap();
    assert_eq!(other.sync().unwrap_err().source.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(store.read("archive/x").unwrap(), "onetwo");
}

#[test]
fn an_upload_in_pieces_is_noted_until_it_ends() {
    let store = Store::in_memory();
    let bytes = vec![7; 11 << 20];
    let mut file = store.new_file("parts/a").unwrap();
    file.write_all(&bytes).unwrap();
    assert_eq!(store.list_all("").unwrap(), ["state/uploads/parts/a"]);
    let stored = file.finish().unwrap();
    assert_eq!(store.list_all("").unwrap(), ["parts/a"]);
    assert_eq!(digest(store.open_file("parts/a").unwrap()).unwrap(), (stored.bytes, stored.blake3));
    let mut file = store.new_file("parts/b").unwrap();
    file.write_all(&bytes).unwrap();
    drop(file);
    assert_eq!(store.list_all("").unwrap(), ["parts/a"]);
}
