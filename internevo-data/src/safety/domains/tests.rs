//! Lists on disk and what is found in them.

use std::fs;

use proptest::prelude::*;

use super::{
    source::{Line, read_line},
    *,
};

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn list(dir: &Path, entries: &[(&str, usize)], categories: &[&str]) -> DomainList {
    let mut builder =
        DomainListBuilder::new(categories.iter().map(|name| (*name).to_owned()).collect()).expect("few categories");
    entries.iter().for_each(|(entry, category)| builder.push(&address(entry), *category));
    builder.write(&dir.join("a.list")).expect("written");
    DomainList::open(&dir.join("a.list")).expect("whole")
}

fn names(list: &DomainList, text: &str) -> Vec<String> {
    list.lookup(&address(text)).iter().map(|at| list.categories()[at].clone()).collect()
}

#[test]
fn a_domain_blocks_what_is_below_it_and_nothing_that_only_ends_alike() {
    let dir = tempfile::tempdir().expect("folder");
    let entries = [("bad.com", 0), ("worse.bad.com", 1), ("x.org/a/b", 1), ("93.184.216.34", 0), ("bücher.example", 1)];
    let list = list(dir.path(), &entries, &["adult", "gambling"]);
    assert_eq!(names(&list, "http://u@A.b.BAD.com.:8080/x"), ["adult"]);
    assert_eq!(names(&list, "https://sub.worse.bad.com"), ["adult", "gambling"]);
    assert_eq!(names(&list, "http://x.org/A/b/c?d"), ["gambling"]);
    assert_eq!(names(&list, "http://93.184.216.34/"), ["adult"]);
    assert_eq!(names(&list, "http://xn--bcher-kva.example/"), ["gambling"]);
    for fine in ["notbad.com", "bad.com.example.org", "example.org/bad.com", "x.org/a/bc", "x.org", "sub.x.org/a/b"] {
        assert_eq!(names(&list, fine), [""; 0], "{fine}");
    }
}

#[test]
fn every_form_of_list_is_read_and_what_is_no_entry_is_counted() {
    let entries = |line: &str| match read_line(line) {
        Line::Entries(entries) => entries.iter().map(|entry| entry.as_str().to_owned()).collect(),
        other => vec![format!("{other:?}")],
    };
    assert_eq!(entries("*.example.com # ours"), ["example.com"]);
    assert_eq!(entries(".example.com"), ["example.com"]);
    assert_eq!(entries("0.0.0.0 a.example www.b.example\t# x"), ["a.example", "b.example"]);
    assert_eq!(entries("127.0.0.1 localhost"), [""; 0]);
    assert_eq!(entries("::1 ip6-loopback c.example"), ["c.example"]);
    assert_eq!(entries("||ads.example^"), ["ads.example"]);
    assert_eq!(entries("||ads.example^$third-party"), ["Other"]);
    assert_eq!(entries("http://x.org/p/"), ["x.org/p"]);
    assert_eq!(entries("! title"), ["Blank"]);
    assert_eq!(entries("two words"), ["Other"]);
}

#[test]
fn a_folder_of_categories_is_built_once_and_again_when_a_list_changes() {
    let dir = tempfile::tempdir().expect("folder");
    let (lists, built) = (dir.path().join("lists"), dir.path().join("artifacts"));
    let write = |name: &str, text: &str| {
        let path = lists.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("list");
    };
    write("adult/domains", "bad.com\nnot an entry\n");
    write("adult/urls", "x.org/a\n");
    write("adult/usage", "not a list\n");
    write("Phishing-Sites.txt", "127.0.0.1 phish.example\nbad.com\n");
    let open = || DomainList::of_sources(std::slice::from_ref(&lists), &built).expect("lists");
    let list = open();
    assert_eq!((list.len(), list.skipped(), list.categories()), (3, 1, &["adult".into(), "phishing_sites".into()][..]));
    assert_eq!(names(&list, "bad.com"), ["adult", "phishing_sites"]);
    let modified = |list: &DomainList| fs::metadata(list.path()).expect("file").modified().expect("time");
    let again = open();
    assert_eq!(
        (again.path(), modified(&again), again.fingerprint()),
        (list.path(), modified(&list), list.fingerprint())
    );
    write("adult/domains", "bad.com\nother.example\n");
    let changed = open();
    assert_eq!((changed.len(), names(&changed, "other.example")), (4, vec!["adult".to_owned()]));
    assert_ne!(changed.fingerprint(), list.fingerprint());
    write("empty", "# nothing\n");
    let message = DomainList::of_sources(std::slice::from_ref(&lists), &built).expect_err("empty").to_string();
    assert!(message.contains("empty") && message.contains("no entry"), "{message}");
}

#[test]
fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let path = list(dir.path(), &[("bad.com", 0), ("x.org/a", 0)], &["adult"]).path().to_owned();
    let whole = fs::read(&path).expect("file");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("write");
        DomainList::open(&path).expect_err("refused").to_string()
    };
    assert!(refused(&whole[..whole.len() - 1]).contains("size"));
    assert!(refused(&whole[..9]).contains("too short"));
    assert!(refused(b"INDOMS00________").contains("version"));
    let mut changed = whole.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    assert!(refused(&changed).contains("build it again"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn exactly_the_entries_are_found_in_lists_of_any_size(
        entries in proptest::collection::btree_map("[a-d]{1,3}(\\.[a-d]{1,2}){0,2}", 0usize..3, 0..200),
        probes in proptest::collection::vec("[a-d]{1,3}(\\.[a-d]{1,2}){0,2}", 50),
    ) {
        let dir = tempfile::tempdir().expect("folder");
        let pairs: Vec<(&str, usize)> = entries.iter().map(|(entry, category)| (entry.as_str(), *category)).collect();
        let list = list(dir.path(), &pairs, &["a", "b", "c"]);
        prop_assert_eq!(list.len() as usize, entries.len());
        for probe in probes.iter().chain(entries.keys()) {
            let expected = entries.get(probe).map(|category| CategorySet::of(*category)).unwrap_or_default();
            prop_assert_eq!(list.entry(probe), expected);
        }
    }
}
