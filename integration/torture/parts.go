package main

// part is one torture test: an ordinary test that begins with trial.Start.
type part struct {
	name  string // as the test gives it to trial.Start
	test  string // its name
	where string // its package, from the repository's root
	long  int    // how many trials it makes here if N is not given
	dc    bool   // needs the lab's images
	does  string // for the table: what was done, and what one trial is
}

// parts is the one list of them, in the order in which they run and in which the table has them. A new one is a line here, and a test that begins with
// trial.Start, counts its trials, and says Lost, Wrong or OutOfOrder of what it finds.
var parts = []part{
	{name: "hook", test: "TestKilledAtRandom", where: "./cmd/samba-pwsync-hook", long: 10_000,
		does: "the hook killed (SIGKILL) at a random moment; what is visible is whole or recognised as damaged, exit 0 means whole"},
	{name: "durable", test: "TestPowerCut", where: "./internal/durable", long: 100_000,
		does: "power cut at a random system call of creating, replacing, moving, removing and shredding files: what had returned holds"},
	{name: "spool", test: "TestPowerCut", where: "./internal/spool", long: 100_000,
		does: "power cut at a random system call of the spool's writer: what was put is whole, what was set aside or shredded stays so"},
	{name: "capture", test: "TestPowerCut", where: "./cmd/samba-pwsync-hook", long: 100_000,
		does: "power cut at a random system call of the hook, some of its runs killed before: after exit 0 the capture is there and whole"},
	{name: "handover", test: "TestPowerCut", where: "./internal/agent", long: 100_000,
		does: "power cut at a random system call of the agent, in most recordings killed up to twice before: each capture is there, or its change; what the mark covers was passed on"},
	{name: "flood", test: "TestFlood", where: "./integration/flood", long: 100_000, dc: true,
		does: "calls of SamrValidatePassword as fast as a real DC answers them, in a victim's name, in ever new ones and without names, while passwords are changed: each change arrives at both clouds, and nothing else does; spool and log stay bounded"},
	{name: "disk-hook", test: "TestDiskFaults", where: "./cmd/samba-pwsync-hook", long: 5000,
		does: "system calls of the hook fail (ENOSPC, EDQUOT, EROFS, EIO), write less, are late or the last, each in turn and then at random: after exit 0 the capture is there and whole, or the log has an error"},
	{name: "disk-forwarder", test: "TestDiskFaults", where: "./internal/deliver", long: 1000,
		does: "the same of the forwarder with its databases, for one call or up to 200: half an hour later both targets hold what the directory does, in order, without a restart but after a kill or damage"},
	{name: "bits", test: "TestBits", where: "./internal/deliver", long: 20_000,
		does: "one file of the forwarder's (changes, sightings, mark, queue, ledger) damaged, at rest or under its hands: bits, sectors of zeros, of noise and of other files, cut off; the directory's passwords arrive, no other, at most that of the damaged file is missing, with an alarm"},
	{name: "model", test: "TestModel", where: "./internal/deliver", long: 1_000_000,
		does: "steps of accounts, DCs, targets: late, repeated and superseded changes, deleted accounts, restored directories, crashes between any two of what a delivery writes, against a model"},
	{name: "serve", test: "TestServe", where: "./integration/kills", long: 1000, dc: true,
		does: "serve, or agent and forwarder apart, killed (SIGKILL) at a random moment on a real DC, while passwords change, are refused or forged, accounts come, go and are renamed, hooks are killed, " +
			"clouds misbehave, Samba is restarted, its socket is gone, the clock is set: after each round each cloud holds the directory's password of each account, and has been sent none that the directory did not take"},
}
