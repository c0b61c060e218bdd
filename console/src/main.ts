import { mount } from "svelte";
import App from "./App.svelte";
import { live } from "./lib/live.svelte";
import { preferences } from "./lib/preferences.svelte";
import { router } from "./lib/router.svelte";
import "./styles/tokens.css";
import "./styles/base.css";

preferences.start();
router.start();
live.start();
mount(App, { target: document.getElementById("app")! });
