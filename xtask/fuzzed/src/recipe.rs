//! Recipes and sweeps: the text of a file. Lines that begin with `--set ` are given as on the command line; a file whose
//! first line is `# sweep` is read as a sweep.

use antlm::model::Model;
use antlm::recipe::plan::{Facts, Plan};
use antlm::recipe::{Recipe, names};
use antlm::sweep::Sweep;

pub fn run(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    if text.starts_with("# sweep") {
        // What a sweep evaluates on has to be there.
        let folder = crate::place("blimp_filtered");
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("x.jsonl"), "").expect("there is room for a temporary file");
        let Some(sweep) = crate::read(Sweep::load(&crate::file("sweep.toml", data))) else { return false };
        for job in sweep.jobs().iter().take(3) {
            crate::read(sweep.recipe(job));
        }
        return true;
    }
    let (mut set, mut lines) = (Vec::new(), Vec::new());
    for line in data.split(|&byte| byte == b'\n') {
        match line.strip_prefix(b"--set ") {
            Some(assignment) => set.push(String::from_utf8_lossy(assignment).into_owned()),
            None => lines.push(line),
        }
    }
    let path = crate::file("recipe.toml", &lines.join(&b'\n'));
    let name = path.to_str().expect("a temporary folder is UTF-8");
    crate::read(Recipe::used_by(name));
    crate::read(Recipe::read(&path));
    let Some(recipe) = crate::read(Recipe::load(name, &set)) else { return false };
    let toml = recipe.to_toml().expect("what was checked is written");
    assert_eq!(Recipe::from_toml(&toml, "again").expect("what it writes it reads"), recipe);
    let facts = Facts { segments: 7, words: 50, tokens: 80, text_words: 50 };
    if let Some(plan) = crate::read(Plan::new(&recipe, Some(facts))) {
        assert!(!plan.to_string().is_empty());
    }
    if recipe.model.layers < 100 {
        let model = Model::new(&recipe.config()).expect("a checked model");
        assert_eq!(model.layout().len() as u64, antlm::recipe::size::parameters(&recipe.config()));
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let whole =
        names().into_iter().filter_map(|name| Some(Recipe::load(&name, &[]).ok()?.to_toml().ok()?.into_bytes()));
    let mut seeds: Vec<Vec<u8>> = whole.collect();
    for text in [
        "version = 1\nbase = \"antlm-ltg-bert-tiny\"\nschedule = \"1 clm + 1 mlm\"\n--set optimizer.lr=0.002\n--set name=x",
        "version = 1\nbase = \"babyllama-tiny\"\n[checkpoints]\nmilestones = [2000, 1000000]\n[[data]]\nname = \"a\"\n\
         paths = [\"x/\"]\ncleaning = \"babylm:qed\"\nweight = 2.5\nlanguage = \"nl\"\nwords = \"bytes\"",
        "version = 1\nbase = \"ltg-bert-tiny\"\ntrack = \"strict-small\"\n[learning_rate]\nwarmup = 300\n\
         [checkpoints]\nmilestones = \"babylm-strict-small\"",
        "# sweep\nversion = 1\nbase = \"ltg-bert-tiny\"\nschedules = [\"1 clm\", \"1 mlm\"]\nseeds = [1, 2]\nout = \"runs\"\n\
         [eval]\ndata = \".\"\ntasks = [\"blimp\"]\n[finetune]\ndata = \".\"\npreset = \"2026\"",
    ] {
        seeds.push(text.into());
    }
    seeds
}
