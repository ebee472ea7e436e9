// Package damage proves what the engine answers beside damage: right, or an error of a
// known type; never an old value, a wrong one, or silence.
//
// # Where you are
//
// A part of the fuzzing kit that knows engine; nobody imports it but tests and
// "holdfast torture", by [Runners]. A [Fixture] is a small store whose whole life is
// known ([NewFixture]), so that each of its bytes can be damaged in turn. A [Kind]
// lists cases ([Kinds], [KindsOpen]), [Sweep] tries them, and the ways to try are
// [Fixture.AtRest], [Fixture.In] with one of [Modes], [Fixture.WhileOpen] and, on a real
// disk with mappings, [Fixture.Mapped].
//
// # Always true
//
//   - D1: a case is right, or has one of the outcomes of [Outcome], or is an error
//     that names the fixture, the file and the damage.
//   - D2: a closed store never misses a key without an error. A killed one may miss
//     what lies in the damaged end of its log, since the promise of each group is in
//     the next.
//   - D3: a store that refuses has kept its tables, packs, log and STATE as they were,
//     and refuses again with the same words (O5).
//   - D4: a store that opens beside damage takes one key more, closes and opens again,
//     and nothing is worse.
//   - D5: one file put back to an earlier state is refused, reported or harmless. Two
//     can go back unseen only together: STATE and the newest segment of the log are all
//     that know how far the log came.
//   - D6: damage under an open store costs keys that lie in the damaged file, and no
//     others.
//
// # What it costs
//
// Two opens are about two milliseconds. A sweep with -stride 1 damages every byte; of
// its single bits it gives one in seven the second open of D3 and D4 and one in seven a
// plain open, and opens for reading only for the others, and where a bit lies deep in
// zeros. The fixture is as large as it is because a segment has at least 16 KiB, the
// header of a segment two pages, of a pack one, and a raw value in a pack 4 KiB: of its
// 58 KiB some 48 are zeros.
package damage
