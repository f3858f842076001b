//! Both executors: order, panics, counting.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

#[test]
fn a_flush_does_not_wait_behind_compactions() {
    let executor = RayonExecutor::new(1);
    let (release, wait) = mpsc::channel::<()>();
    let (flushed, done) = mpsc::channel::<()>();
    executor.spawn(
        Lane::Compaction,
        Box::new(move || assert!(wait.recv().is_ok())),
    );
    executor.spawn(Lane::Flush, Box::new(move || flushed.send(()).unwrap()));
    done.recv().unwrap();
    release.send(()).unwrap();
    executor.join();
}

#[test]
fn join_counts_jobs_that_panic_and_jobs_spawned_by_jobs() {
    let executor = Arc::new(RayonExecutor::new(2));
    let ran = Arc::new(AtomicUsize::new(0));
    for index in 0..20 {
        let (again, counter) = (Arc::downgrade(&executor), Arc::clone(&ran));
        let job = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let last = Arc::clone(&counter);
            let more = Box::new(move || assert!(last.fetch_add(1, Ordering::Relaxed) < 40));
            again.upgrade().unwrap().spawn(Lane::Compaction, more);
            assert!(index % 3 != 0, "some jobs panic");
        };
        executor.spawn(
            if index % 2 == 0 {
                Lane::Flush
            } else {
                Lane::Compaction
            },
            Box::new(job),
        );
    }
    executor.join();
    assert_eq!(ran.load(Ordering::Relaxed), 40);
}

#[test]
fn join_within_a_job_waits_for_the_others_only() {
    let executor = Arc::new(RayonExecutor::new(1));
    let (ended, done) = mpsc::channel::<()>();
    let own = Arc::clone(&executor);
    executor.spawn(
        Lane::Compaction,
        Box::new(move || {
            own.join();
            ended.send(()).unwrap();
        }),
    );
    done.recv().unwrap();
    executor.join();
}

#[test]
fn parts_run_to_the_end_though_one_panics() {
    let executors: [Arc<dyn Executor>; 2] = [
        Arc::new(RayonExecutor::new(2)),
        Arc::new(ManualExecutor::new(7)),
    ];
    for executor in executors {
        let ran = Arc::new(AtomicUsize::new(0));
        let part = |index: usize| {
            let ran = Arc::clone(&ran);
            Box::new(move || {
                ran.fetch_add(1, Ordering::Relaxed);
                assert!(index != 1, "one part panics");
            }) as Job
        };
        executor.run_all((0..4).map(part).collect());
        assert_eq!(ran.load(Ordering::Relaxed), 4);
    }
}

#[test]
fn a_panic_becomes_an_error_with_its_message() {
    let error = guarded::<()>(|| panic!("no {}", "luck")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Background);
    assert!(error.message().ends_with("no luck"));
    assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
}

#[test]
fn the_seed_decides_the_order_of_a_manual_executor() {
    let order = |seed| {
        let executor = ManualExecutor::new(seed);
        let ran = Arc::new(Mutex::new(Vec::new()));
        for index in 0..20 {
            let ran = Arc::clone(&ran);
            executor.spawn(Lane::Flush, Box::new(move || ran.lock().push(index)));
        }
        assert_eq!(executor.waiting().len(), 20);
        assert!(ran.lock().is_empty() && executor.assist());
        executor.join();
        assert!(!executor.assist());
        let ran = ran.lock();
        ran.clone()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

/// The story: merges had as much of two processors as the reader and the writer beside them.
#[cfg(target_os = "linux")]
#[test]
fn parts_of_compactions_let_other_threads_go_first() {
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Behind the name, which may hold anything, this is the 17th.
        let behind = stat.rsplit_once(") ").unwrap().1;
        behind.split(' ').nth(16).unwrap().parse().unwrap()
    }
    let executor = Arc::new(RayonExecutor::new(2));
    let (tell, told) = mpsc::channel();
    let own = Arc::clone(&executor);
    let job = move || {
        let part = tell.clone();
        own.run_all(vec![Box::new(move || part.send(niceness()).unwrap())]);
        tell.send(niceness()).unwrap();
    };
    executor.spawn(Lane::Compaction, Box::new(job));
    let (part, job) = (told.recv().unwrap(), told.recv().unwrap());
    assert_eq!(job, niceness(), "a job may hold locks");
    assert!(part > job || part == 19, "{part}");
    executor.join();
}

/// The story: who waited for the parts of a merge took up another job meanwhile, on top of its own. That job
/// waited for a writer, and the writer for the tables of the merge below it: nobody wrote any more.
#[test]
fn who_waits_for_parts_takes_up_no_other_job() {
    let executor = Arc::new(RayonExecutor::new(1));
    let has_merged = Arc::new(AtomicBool::new(false));
    let (spawned, is_spawned) = mpsc::channel();
    {
        let (within, has_merged) = (Arc::clone(&executor), Arc::clone(&has_merged));
        let job = move || {
            let part = move || {
                is_spawned.recv().unwrap();
                // Long enough for a thread that looks for work to find it.
                (0..10_000).for_each(|_| std::thread::yield_now());
            };
            within.run_all(vec![Box::new(part)]);
            has_merged.store(true, Ordering::SeqCst);
        };
        executor.spawn(Lane::Compaction, Box::new(job));
    }
    let was_merged = Arc::new(AtomicBool::new(false));
    {
        let (has_merged, was_merged) = (Arc::clone(&has_merged), Arc::clone(&was_merged));
        let job = move || was_merged.store(has_merged.load(Ordering::SeqCst), Ordering::SeqCst);
        executor.spawn(Lane::Compaction, Box::new(job));
    }
    spawned.send(()).unwrap();
    executor.join();
    assert!(was_merged.load(Ordering::SeqCst));
}
