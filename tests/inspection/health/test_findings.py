from edgeseg.inspection.health.findings import Finding, guarded


def test_findings_of_a_check_are_given_as_they_are():
    found = [Finding("a", "ok", "1"), Finding("b", "warning", "2", "do")]

    assert guarded("all", lambda: iter(found)) == found


def test_a_check_that_breaks_is_a_problem_after_what_it_found_before():
    def look():
        yield Finding("numpy", "ok", "2.4")
        raise OSError("libcudart.so.13: cannot open\nmore")

    first, last = guarded("packages", look)

    assert first == Finding("numpy", "ok", "2.4")
    assert (last.check, last.status) == ("packages", "problem")
    assert last.found == "cannot be checked: OSError: libcudart.so.13: cannot open"
    assert last.advice.startswith("repair what the message names")


def test_an_exception_without_a_text_is_named_by_its_type():
    def look():
        raise AssertionError
        yield

    (finding,) = guarded("x", look)

    assert finding.found == "cannot be checked: AssertionError: no message"
