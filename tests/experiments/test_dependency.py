"""How many couplings it takes until every output depends on every input."""

from course_lib.experiments import coupling_dependencies


def test_dependencies_of_couplings():
    for couplings, zeros in ((0, 56), (1, 40), (2, 12), (3, 0), (4, 0)):
        pattern = coupling_dependencies(couplings, 8)
        assert (~pattern).sum() == zeros
        assert pattern.diagonal().all()
    assert coupling_dependencies(2, 3).all()  # with one odd coordinate two are enough
