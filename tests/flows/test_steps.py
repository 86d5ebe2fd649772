"""Steps as task runs of a real server, in a process of its own as in a real run."""


def test_steps_run_as_named_task_runs(recorded: dict) -> None:
    assert recorded["sum"] == 6
    assert recorded["tasks"] == {"talk": "Completed", "large": "Completed", "small": "Completed", "ask": "Failed"}
    assert recorded["flows"] == {"three-steps": "Completed", "failing": "Failed"}


def test_what_a_step_says_is_in_the_logs_of_its_task_run(recorded: dict) -> None:
    assert recorded["logs"] == [["half of them", "talk"]]


def test_large_values_pass_untouched_and_fast(recorded: dict) -> None:
    assert recorded["same"]
    assert recorded["large_seconds"] < 2  # as a task argument and result: 13 s


def test_the_users_error_comes_out_unchanged(recorded: dict) -> None:
    assert recorded["error"] == "give an existing folder as --source"
