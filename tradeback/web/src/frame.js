// One change of the page an animation frame, however many messages arrive in it.
//
// A task is named by the function itself: asked for a hundred times before the next frame, it runs once. In a hidden
// tab no frame comes, and what waits stays as many tasks as there are functions.

const waiting = new Set();
let asked = false;

export function onNextFrame(task) {
  waiting.add(task);
  if (!asked) {
    asked = true;
    requestAnimationFrame(run);
  }
}

function run() {
  asked = false;
  const tasks = [...waiting];
  waiting.clear();
  for (const task of tasks) task();
}
