//! The clients of other languages: found on this machine, or installed into the target directory
//! where the environment asks for it, or left out and said so.

use super::command::run;
use super::trial::skip;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const HOW: &str = "RIVERRUN_REQUIRE_CLIENTS=1 cargo test --workspace installs it into target/";

/// The last release of Kafka's tools that has `DumpLogSegments`.
const KAFKA_TOOLS: &str = "4.3.1";
const KAFKA_CLIENTS: &str = "4.4.0";
const SLF4J: &str = "1.7.36";
const KAFKA_PYTHON: &str = "kafka-python[lz4,snappy,zstd]>=3.0.7,<4";
/// The data sets are compared with facts about this release, so it is not left open.
const VEGA_DATASETS: &str = "3.2.1";

/// One installation at a time: the tests run side by side and share what is installed.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Whether a client that is not there is a failure.
pub(crate) fn required() -> bool {
    std::env::var("RIVERRUN_REQUIRE_CLIENTS").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The target directory that this test was built into, wherever that is: cargo marks it as a cache.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    test.ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .or_else(|| test.ancestors().nth(3))
        .map(Path::to_path_buf)
        .context("the test binary lies outside of any target directory")
}

/// A program on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A program that comes with the machine. We do not install these: a test that changes the
/// machine it runs on is a bad guest.
pub(crate) fn machine_program(program: &str, package: &str, what: &str) -> Result<PathBuf> {
    match on_path(program) {
        Some(found) => Ok(found),
        None if required() => {
            bail!(
                "{program} is not on the path, and RIVERRUN_REQUIRE_CLIENTS is set: apt-get install {package}"
            )
        }
        None => Err(skip(
            what,
            format!("{program} is not on the path; apt-get install {package}"),
        )),
    }
}

/// Runs `install` on an empty directory under the target directory unless `recipe` was installed
/// there before. Half an installation is never taken for one: the mark is written last.
fn installed(
    what: &str,
    folder: &str,
    recipe: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let _one_at_a_time = INSTALLING.lock().unwrap();
    let directory = target_dir()?.join("clients").join(folder);
    let mark = directory.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|was| was == recipe) {
        return Ok(directory);
    }
    if !required() {
        return Err(skip(what, format!("not installed; {HOW}")));
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    install(&directory).with_context(|| format!("installing {what}"))?;
    fs::write(mark, recipe)?;
    Ok(directory)
}

/// A python that can import kafka-python and its codecs.
pub(crate) fn kafka_python() -> Result<PathBuf> {
    let what = "kafka-python";
    let python = machine_program("python3", "python3 python3-venv", what)?;
    let probe = "import kafka, lz4, snappy, zstandard, sys; \
                 sys.exit(int(kafka.__version__.split('.')[0]) < 3)";
    let has_it = |python: &Path| {
        run(
            Command::new(python).args(["-c", probe]),
            b"",
            Duration::from_secs(60),
        )
        .is_ok()
    };
    if has_it(&python) {
        return Ok(python);
    }
    let recipe = format!("{KAFKA_PYTHON}\n{}\n", python.display());
    let directory = installed(what, "python", &recipe, |directory| {
        run(
            Command::new(&python).args(["-m", "venv"]).arg(directory),
            b"",
            INSTALL_LIMIT,
        )?;
        run(
            Command::new(directory.join("bin/python"))
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .arg(KAFKA_PYTHON),
            b"",
            INSTALL_LIMIT,
        )?;
        Ok(())
    })?;
    Ok(directory.join("bin/python"))
}

/// Apache Kafka's Java client and tools.
pub(crate) struct Java {
    java: PathBuf,
    directory: PathBuf,
}

impl Java {
    /// A virtual machine with the client's jars and the programs of this test.
    pub(crate) fn client(&self) -> Command {
        self.with("client")
    }

    /// The same with the jars of Kafka's tools.
    pub(crate) fn tools(&self) -> Command {
        self.with("tools")
    }

    fn with(&self, jars: &str) -> Command {
        let jars = self.directory.join(jars).join("*");
        let classes = self.directory.join("classes");
        let mut command = Command::new(&self.java);
        // Short runs: the second compiler and parallel collection cost more than they give.
        command.args([
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-Xmx512m",
            "-cp",
        ]);
        command.arg(format!("{}:{}", classes.display(), jars.display()));
        command
    }
}

/// The Java client, its tools, and our small programs compiled against them.
pub(crate) fn java(what: &str) -> Result<Java> {
    let java = machine_program("java", "default-jdk-headless", what)?;
    let javac = machine_program("javac", "default-jdk-headless", what)?;
    let sources = [
        (
            "Conformance.java",
            include_str!("../clients/java/Conformance.java"),
        ),
        (
            "HexDecoder.java",
            include_str!("../clients/java/HexDecoder.java"),
        ),
        ("Steady.java", include_str!("../clients/java/Steady.java")),
    ];
    let recipe = format!("{KAFKA_TOOLS} {KAFKA_CLIENTS} {SLF4J}\n");
    let directory = installed(
        "Apache Kafka's Java client and tools",
        "java",
        &recipe,
        |directory| {
            let maven = machine_program("mvn", "maven", what)?;
            for (folder, artifact, version) in [
                ("client", "kafka-clients", KAFKA_CLIENTS),
                ("tools", "kafka-tools", KAFKA_TOOLS),
            ] {
                let pom = directory.join(format!("{folder}.xml"));
                fs::write(&pom, pom_of(artifact, version))?;
                run(
                    Command::new(&maven)
                        .args(["-q", "-B", "-f"])
                        .arg(&pom)
                        .arg("dependency:copy-dependencies")
                        .arg(format!(
                            "-DoutputDirectory={}",
                            directory.join(folder).display()
                        )),
                    b"",
                    INSTALL_LIMIT,
                )?;
            }
            Ok(())
        },
    )?;
    let _one_at_a_time = INSTALLING.lock().unwrap();
    let classes = directory.join("classes");
    let text: String = sources.iter().map(|(_, source)| *source).collect();
    if fs::read_to_string(classes.join("compiled")).is_ok_and(|was| was == text) {
        return Ok(Java { java, directory });
    }
    fs::create_dir_all(&classes)?;
    let mut command = Command::new(javac);
    let jars = directory.join("tools").join("*");
    command
        .args(["-Xlint:all", "-Werror", "-proc:none", "-cp"])
        .arg(jars)
        .arg("-d")
        .arg(&classes);
    for (name, source) in sources {
        fs::write(classes.join(name), source)?;
        command.arg(classes.join(name));
    }
    run(&mut command, b"", INSTALL_LIMIT).context("compiling the Java programs")?;
    fs::write(classes.join("compiled"), text)?;
    Ok(Java { java, directory })
}

fn pom_of(artifact: &str, version: &str) -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>riverrun</groupId><artifactId>{artifact}-for-tests</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>\
         <dependency><groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId>\
         <version>{version}</version></dependency>\
         <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId>\
         <version>{SLF4J}</version></dependency></dependencies></project>\n"
    )
}

/// The folder of npm's `vega-datasets` that holds the data.
pub(crate) fn vega_datasets() -> Result<PathBuf> {
    let what = "real input (npm's vega-datasets)";
    let package = format!("vega-datasets@{VEGA_DATASETS}");
    let directory = installed(what, "npm", &package, |directory| {
        let npm = machine_program("npm", "npm", what)?;
        run(
            Command::new(npm)
                .args([
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--no-save",
                ])
                .arg("--prefix")
                .arg(directory)
                .arg(&package),
            b"",
            INSTALL_LIMIT,
        )?;
        Ok(())
    })?;
    Ok(directory.join("node_modules/vega-datasets/data"))
}
