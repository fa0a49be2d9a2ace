//! What may lie in the data folder: settings that mean nothing, modes that are too wide, things in
//! the place of others.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::{Lab, Random, seed};

#[test]
fn settings_that_mean_nothing_are_refused_where_they_stand() {
    let mut lab = Lab::new();
    let node = lab.loner("left");
    node.cli(&["init"]).expect(0);
    let settings = node.data_dir().join("settings.toml");
    let cases: [(&[u8], &str); 14] = [
        (
            b"name = \"left\"\nlisten_on = []\n",
            ":2:1: unknown field `listen_on`",
        ),
        (b"name = 7\n", ":1:8:"),
        (b"name = \"\"\n", ":1:8:"),
        (b"name = \"a\\u001bb\"\n", "control character"),
        (b"name = \"a\\u202eb\"\n", "control character"),
        (b"listen = [\"nonsense\"]\n", "nonsense"),
        (b"listen = [\"127.0.0.1:99999\"]\n", "99999"),
        (b"advertise = [\"host:0\"]\n", "host:0"),
        (b"default_class = \"purple\"\n", "purple"),
        (b"name = \"left\"\nname = \"right\"\n", ":2:1:"),
        (b"[[[\n", ":1:"),
        (b"name = \"le", ":1:"),
        (b"\0\0\0", ":1:"),
        (b"\xff\xfe", "UTF-8"),
    ];
    for (text, words) in cases {
        fs::write(&settings, text).expect("our folder");
        let shown = String::from_utf8_lossy(text).into_owned();
        let refused = node.cli(&["up"]).expect(2).prints_nothing();
        assert!(!refused.stderr.contains('\u{1b}'), "{shown}: {refused:?}");
        refused.says(words).says("settings.toml");
    }
    let long = vec![b'#'; 2 << 20];
    fs::write(&settings, long).expect("our folder");
    node.cli(&["up"])
        .expect(2)
        .says("settings.toml")
        .prints_nothing();
}

#[test]
fn settings_of_random_bytes_are_refused_and_never_end_in_a_panic() {
    const ROUNDS: usize = 40;
    const WHOLE: &[u8] =
        b"name = \"left\"\nlisten = [\"127.0.0.1:0\"]\ndefault_class = \"moderate\"\n\
        [[classes]]\ntopic = \"orders/*\"\nclass = \"critical\"\n";
    let mut lab = Lab::new();
    let node = lab.loner("left");
    node.cli(&["init"]).expect(0);
    let settings = node.data_dir().join("settings.toml");
    let mut random = Random::new(seed());
    for _ in 0..ROUNDS {
        let mut text = WHOLE.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len() as u64) as usize;
            text[at] = random.next().to_le_bytes()[0];
        }
        // However it reads, the last line is one that no settings have.
        text.extend_from_slice(b"\n\"\"\"'''\nnonsense nonsense\n");
        fs::write(&settings, &text).expect("our folder");
        let refused = node.cli(&["up"]);
        let shown = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(refused.code, Some(2), "{shown}: {refused:?}");
    }
}

#[test]
fn wide_modes_are_refused_with_the_command_that_mends_them() {
    let mut lab = Lab::new();
    let mut node = lab.loner("left");
    node.cli(&["init"]).expect(0);
    node.start();
    node.stop();
    let chmod = |path: &std::path::Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("our file");
    };
    let folder = node.data_dir().to_owned();
    let key = folder.join("identity.key");
    let cases = [
        (
            &key,
            [0o644, 0o640, 0o604],
            0o600,
            "chmod 600",
            &["up", "id"][..],
        ),
        (&folder, [0o755, 0o750, 0o701], 0o700, "chmod 700", &["up"]),
    ];
    for (path, modes, mended, command, words) in cases {
        for mode in modes {
            chmod(path, mode);
            for word in words {
                let refused = node.cli(&[word]).expect(5).prints_nothing();
                refused.says(command).says(&path.display().to_string());
            }
        }
        chmod(path, mended);
    }
    node.start();
    node.stop();
}

#[test]
fn something_else_in_the_place_of_a_file_is_named_and_left_alone() {
    let mut lab = Lab::new();
    let node = lab.loner("left");
    fs::write(node.data_dir(), "a file, not a folder").expect("our folder");
    for word in ["up", "init", "status", "id"] {
        let refused = node.cli(&[word]);
        assert!(matches!(refused.code, Some(1..=7)), "{word}: {refused:?}");
        refused.prints_nothing();
    }
    let kept = fs::read_to_string(node.data_dir()).expect("it is still there");
    assert_eq!(kept, "a file, not a folder");
    let node = lab.loner("right");
    node.cli(&["init"]).expect(0);
    let key = node.data_dir().join("identity.key");
    let mut no_text = fs::read(&key).expect("our file");
    no_text[40] = 0xff;
    for bytes in [&b""[..], b"nonsense", &[b'x'; 300], &[0xff; 300], &no_text] {
        fs::write(&key, bytes).expect("our file");
        let refused = node.cli(&["up"]).expect(7).prints_nothing();
        refused.says("identity.key");
        assert_eq!(fs::read(&key).expect("it is still there"), bytes);
    }
}
