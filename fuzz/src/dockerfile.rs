//! Dockerfiles: read, planned with all their stages, every instruction resolved, checked. What is refused is refused with lines that
//! are in the file; paths are absolute; triggers of a base are as good as the file's own instructions.

use dockerfile::lint::Facts;
use dockerfile::{
    Action, Base, Dockerfile, Inherited, Lines, Plan, Problem, Request, Scope, Step, parse, plan, triggers,
};
use oci::Platform;

pub fn check(data: &[u8]) {
    let file = match parse(data) {
        Ok(file) => file,
        Err(problem) => return assert_lines(problem.lines, data),
    };
    for node in &file.nodes {
        assert_lines(Some(node.lines), data);
    }
    let platform = Platform::of("linux", "amd64", None);
    let mut request = Request::new(platform.clone(), platform);
    for argument in ["A=b", "HTTP_PROXY=p", "EMPTY="] {
        request.build_arg(argument, |_| None).expect("a build argument");
    }
    let base = Inherited {
        env: vec!["A=a b".to_owned(), "PATH=/bin".to_owned()],
        workdir: "w".to_owned(),
        ..Inherited::default()
    };
    let facts = Facts { is_ignored: &|_| true, image: &|_, _| Some(base.clone()), all_stages: true };
    let checked = dockerfile::check(&file, &request, &facts);
    for finding in &checked.findings {
        assert_lines(Some(finding.lines), data);
    }
    assert_lines(checked.problem.and_then(|problem| problem.lines), data);
    let Ok(dockerfile) = Dockerfile::of(&file) else { return };
    if let Ok(plan) = plan(&dockerfile, &request) {
        assert_eq!(plan.stages.last().map(|stage| stage.index), Some(dockerfile.stages.len() - 1));
        if let Err(problem) = steps(&plan, &base) {
            assert_lines(problem.lines, data);
        }
    }
    // What a Dockerfile leaves to those built on it is what they get.
    let left: Vec<String> = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions)
        .filter_map(|i| match &i.value {
            dockerfile::Instruction::Onbuild(expression) => Some(expression.clone()),
            _ => None,
        })
        .collect();
    if let Ok(triggers) = triggers(&left) {
        assert_eq!(triggers.len(), left.len());
    }
}

fn steps(plan: &Plan, base: &Inherited) -> Result<(), Problem> {
    let mut scopes: Vec<Scope> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        assert!(stage.depends_on.iter().all(|needed| *needed < place), "a stage before what it needs");
        let mut scope = match stage.base {
            Base::Stage(base) => Scope::on(&scopes[base]),
            Base::Scratch => Scope::new(plan, &Inherited::scratch())?,
            Base::Image { .. } | Base::Context(_) => Scope::new(plan, base)?,
        };
        for instruction in &stage.instructions {
            assert_paths(&scope.step(instruction)?);
        }
        assert!(scope.env().iter().any(|variable| variable.starts_with("PATH=")));
        scopes.push(scope);
    }
    Ok(())
}

fn assert_paths(step: &Step) {
    let paths: Vec<&str> = match &step.action {
        Action::Run(run) => {
            assert!(!run.argv.is_empty());
            vec![&run.workdir]
        }
        Action::Copy(copy) => vec![&copy.placement.destination],
        Action::Add(add) => vec![&add.placement.destination],
        Action::Workdir(path) => vec![path],
        Action::Config(_) | Action::Arg => Vec::new(),
    };
    assert!(paths.iter().all(|path| path.starts_with('/')), "{paths:?}");
}

fn assert_lines(lines: Option<Lines>, data: &[u8]) {
    let Some(lines) = lines else { return };
    let count = data.split_inclusive(|byte| *byte == b'\n').count();
    assert!(
        1 <= lines.first && lines.first <= lines.last && lines.last as usize <= count,
        "{lines} of {count}"
    );
}
