// The daemon speaks English. Its usual sentences about states and events are said in Chinese here;
// what is not known stays as it is. Pure.
import type { Language } from "./format";

type Say = (m: RegExpExecArray, say: (text: string) => string) => string;

const SIGNS: Record<string, string> = { start: "启动", "be healthy": "变为健康", complete: "成功结束" };
const WRONG: Record<string, string> = { not_finite: "损失不是有限数", silent: "长时间没有训练事件", flat: "损失不再变化", idle: "CPU 空闲" };
const length = (text: string) =>
  text.replace(/([\d.]+) (s|min|h)\b/g, (_, n: string, unit: string) => `${n} ${{ s: "秒", min: "分钟", h: "小时" }[unit]}`);

// Whole clauses; groups that are sentences themselves are said again.
const RULES: [RegExp, Say][] = [
  [/^waiting for volume (\S+): (.+)$/, (m, say) => `等待数据卷 ${m[1]}：${say(m[2]!)}`],
  [/^waiting for (\S+) to (start|be healthy|complete)(: it has no health check)?$/, (m) => `等待 ${m[1]} ${SIGNS[m[2]!]}${m[3] ? "：它没有健康检查" : ""}`],
  [/^waiting for its last run to end$/, () => "等待上一次运行结束"],
  [/^waiting for (\S+): (.+)$/, (m, say) => `等待 ${m[1]}：${say(m[2]!)}`],
  [/^(\S+) is not mounted$/, (m) => `${m[1]} 未挂载`],
  [/^(.+) after ([\d.]+ (?:s|min|h))$/, (m, say) => `${say(m[1]!)}，运行 ${length(m[2]!)}`],
  [/^(?:failed with|exited with|ended with) (?:exit )?code (\d+)$/, (m) => `退出码 ${m[1]}`],
  [/^was ended by signal (\d+)(?: \((\w+)\))?$/, (m) => `被信号 ${m[1]}${m[2] ? `（${m[2]}）` : ""}终止`],
  [/^killed: out of memory, its limit is ([^;]+)$/, (m) => `内存不足被终止，上限为 ${m[1]}`],
  [/^killed: the machine ran out of memory$/, () => "机器内存不足，被终止"],
  [/^finished with exit code 0$/, () => "正常结束，退出码 0"],
  [/^ended by (?:signal )?(\w+)$/, (m) => `被信号 ${m[1]} 终止`],
  [/^gave up after (\d+) restarts$/, (m) => `重启 ${m[1]} 次后放弃`],
  [/^ran out of memory$/, () => "内存不足"],
  [/^could not be started$/, () => "无法启动"],
  [/^could not be (stopped|removed): (.+)$/, (m, say) => `无法${m[1] === "stopped" ? "停止" : "移除"}：${say(m[2]!)}`],
  [/^restarts in (.+)$/, (m) => `${length(m[1]!)}后重启`],
  [/^(\d+) of (\d+) instances: (.+)$/, (m, say) => `${m[2]} 个实例中的 ${m[1]} 个：${say(m[3]!)}`],
  [/^(\d+) of (\d+) instances run: (.+)$/, (m, say) => `${m[2]} 个实例中 ${m[1]} 个已运行：${say(m[3]!)}`],
  [/^(?:unhealthy: )?its health check fails(?:: (.+))?$/, (m, say) => `健康检查失败${m[1] ? `：${say(m[1])}` : ""}`],
  [/^started; its health check has not passed yet$/, () => "已启动，健康检查尚未通过"],
  [/^(\S+) is healthy again$/, (m) => `${m[1]} 恢复健康`],
  [/^(\S+) (started|restarted) \(revision (\d+)\)$/, (m) => `${m[1]} 已${m[2] === "started" ? "启动" : "重启"}（版本 ${m[3]}）`],
  [/^port (\d+) is taken by app (.+)$/, (m) => `端口 ${m[1]} 已被应用 ${m[2]} 占用`],
  [/^port (\d+) is taken by service (\S+)(?: of the same app)?$/, (m) => `端口 ${m[1]} 已被同一应用的服务 ${m[2]} 占用`],
  [/^port (\d+) is taken by another process(.*)$/, (m) => `端口 ${m[1]} 已被其他进程占用${m[2]}`],
  [/^no version under (\S+) yet$/, (m) => `${m[1]} 下还没有模型版本`],
  [/^no version under (\S+)$/, (m) => `${m[1]} 下没有模型版本`],
  [/^found (\d+) under (\S+): did you mean that\?$/, (m) => `${m[2]} 下有 ${m[1]} 个，是否应为该目录？`],
  [/^this machine's files$/, () => "本机文件"],
  [/^(\/\S+): No such file or directory$/, (m) => `${m[1]}：文件不存在`],
  [/^(?:is )?being removed$/, () => "正在删除"],
  [/^(?:is )?starting$/, () => "正在启动"],
  [/^stopping$/, () => "正在停止"],
  [/^stopped on request$/, () => "已按要求停止"],
  [/^about to be handed to the runtime$/, () => "即将交给运行环境"],
  [/^no instance is wanted \(replicas: 0\)$/, () => "不需要实例（replicas: 0）"],
  [/^created by (\S+?)(?:: (.+))?$/, (m) => `由 ${m[1]} 创建${m[2] ? `：${m[2]}` : ""}`],
  [/^revision (\d+) by (\S+?)(?:: (.+))?$/, (m, say) => `版本 ${m[1]}，操作人 ${m[2]}${m[3] ? `：${say(m[3])}` : ""}`],
  [/^rollback to revision (\d+)$/, (m) => `回滚到版本 ${m[1]}`],
  [/^asked to stop$/, () => "请求停止"],
  [/^asked to start$/, () => "请求启动"],
  [/^asked to run again: (.+)$/, (m) => `请求重新运行：${m[1]}`],
  [/^asked to remove$/, () => "请求删除"],
  [/^volumes stay$/, () => "数据卷保留"],
  [/^removed$/, () => "已删除"],
  [/^versions? ([\d, ]+) serves? now(?:, before it ([\d, ]+))?$/, (m) => `模型版本 ${m[1]} 开始服务${m[2] ? `，此前为 ${m[2]}` : ""}`],
  [/^no version serves any more$/, () => "已没有模型版本在服务"],
  [/^model "(.+?)": (.+)$/, (m, say) => `模型 ${m[1]}：${say(m[2]!)}`],
  [/^run (\d+) of (\S+) goes wrong: (\w+)$/, (m) => `${m[2]} 的训练任务 ${m[1]} 异常：${WRONG[m[3]!] ?? m[3]}`],
  [/^run (\d+): (.+)$/, (m, say) => `训练任务 ${m[1]}：${say(m[2]!)}`],
  [/^(\S+) is (NaN|infinite) since step (\d+)$/, (m) => `${m[1]} 自第 ${m[3]} 步起为 ${m[2] === "NaN" ? "NaN" : "无穷大"}`],
  [/^no training event since the start (.+) ago$/, (m) => `启动 ${length(m[1]!)}以来没有训练事件`],
  [/^no training event for ([^(]+?)(?: \(usual: every (.+)\))?$/, (m) => `已 ${length(m[1]!)}没有训练事件${m[2] ? `（通常每 ${length(m[2])}一次）` : ""}`],
  [/^(\S+) has stayed at (\S+) over the last (\d+) points$/, (m) => `${m[1]} 在最近 ${m[3]} 个点停留在 ${m[2]}`],
  [/^the CPU has been idle for (.+) while training$/, (m) => `训练期间 CPU 已空闲 ${length(m[1]!)}`],
  // "service: what happened"
  [/^(?!killed:)([\w.-]+): (.+)$/, (m, say) => `${m[1]}：${say(m[2]!)}`],
];

const MAX_LENGTH = 2000; // longer ones are no sentence of the daemon

function clause(text: string): string {
  for (const [pattern, say] of RULES) {
    const match = pattern.exec(text);
    if (match) return say(match, inChinese);
  }
  return text;
}

function inChinese(text: string): string {
  const whole = clause(text);
  if (whole !== text) return whole;
  return text.includes("; ") ? text.split("; ").map(clause).join("；") : text;
}

export function phrase(text: string, language: Language): string {
  return language === "zh" && text.length <= MAX_LENGTH ? inChinese(text) : text;
}

const KINDS = new Map(Object.entries({
  created: "创建", configured: "变更配置", rolled_back: "回滚", started: "启动", restarted: "重启", exited: "退出", completed: "完成",
  failed: "失败", stopping: "停止中", stopped: "已停止", starting: "启动中", removing: "删除中", removed: "已删除",
  waiting: "等待", healthy: "健康", unhealthy: "不健康", runtime: "运行环境", backup: "备份", serves: "模型切换", learning: "训练", alert: "告警",
}));
export function eventKind(kind: string, language: Language): string {
  return (language === "zh" ? KINDS.get(kind) : undefined) ?? kind;
}
