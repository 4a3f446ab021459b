package secrets

func writeForever(string) {}

const writerEnv = "UNDERSTUDY_TEST_WRITER"
