import { expect, test } from "vitest";
import { eventKind, phrase } from "./phrases";

test.each([
  ["waiting for volume mnist_model: /data/nas is not mounted", "等待数据卷 mnist_model：/data/nas 未挂载"],
  ["waiting for db to be healthy: it has no health check", "等待 db 变为健康：它没有健康检查"],
  ["failed with exit code 1 after 12 s; restarts in 8 s", "退出码 1，运行 12 秒；8 秒后重启"],
  ["tensor: exited with code 0 after 3 min", "tensor：退出码 0，运行 3 分钟"],
  ["was ended by signal 9 (SIGKILL) after 1.5 s", "被信号 9（SIGKILL）终止，运行 1.5 秒"],
  ["2 of 3 instances: ran out of memory", "3 个实例中的 2 个：内存不足"],
  ["1 of 2 instances run: starting", "2 个实例中 1 个已运行：正在启动"],
  ["serving: its health check fails: port 9000: Connection refused", "serving：健康检查失败：port 9000: Connection refused"],
  ["no version under /mnist_model; found 1 under /mnist_model/mnist_model: did you mean that?", "/mnist_model 下没有模型版本；/mnist_model/mnist_model 下有 1 个，是否应为该目录？"],
  ["port 9000 is taken by app serving", "端口 9000 已被应用 serving 占用"],
  ["started; its health check has not passed yet", "已启动，健康检查尚未通过"],
  ["asked to remove; volumes stay", "请求删除；数据卷保留"],
  ["revision 3 by local: rollback to revision 1", "版本 3，操作人 local：回滚到版本 1"],
  ["failed with exit code 2; gave up after 3 restarts", "退出码 2；重启 3 次后放弃"],
  ["finished with exit code 0 after 2 min", "正常结束，退出码 0，运行 2 分钟"],
  ["trainer restarted (revision 2)", "trainer 已重启（版本 2）"],
  ["hungry: killed: out of memory, its limit is 128 MiB after 2.5 s; gave up after 2 restarts", "hungry：内存不足被终止，上限为 128 MiB，运行 2.5 秒；重启 2 次后放弃"],
  ["run 1 of nan-train goes wrong: not_finite", "nan-train 的训练任务 1 异常：损失不是有限数"],
  ["run 1: loss is NaN since step 60", "训练任务 1：loss 自第 60 步起为 NaN"],
  ["run 2: no training event for 5 min (usual: every 2 s)", "训练任务 2：已 5 分钟没有训练事件（通常每 2 秒一次）"],
])("%s", (english, chinese) => {
  expect(phrase(english, "zh")).toBe(chinese);
  expect(phrase(english, "en")).toBe(english);
});

test("what is not known stays as it is", () => {
  for (const text of ["", "the moon is full", "<b>x</b>", "x".repeat(100_000)]) expect(phrase(text, "zh")).toBe(text);
  expect(eventKind("moon", "zh")).toBe("moon");
  expect(eventKind("failed", "zh")).toBe("失败");
  expect(eventKind("constructor", "zh")).toBe("constructor");
});
